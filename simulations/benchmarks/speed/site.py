"""A real site for training benchmarks: records of the VADER ground truth, and a study over them."""

from pathlib import Path

import pandas as pd

from shared.base_models.locate import find
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.tasks.registry import task_kind

SHORT = 48
TABLE, SITE = Path("data/vader/vader.csv"), "tweets"
RECORDS, STEPS, SAMPLING_RATE = 1000, 10, 0.1  # one epoch: a round of the default length


def study_of(layers: str, *, max_length: int = SHORT) -> Study:
    """Declare sentiment under epsilon 3, LoRA on these layers of MiniLM; the default length cuts 5 in 1,000 texts."""
    declared = {
        "study": {"name": "benchmark"},
        "model": {"source": "bundled:minilm"},
        "task": {"kind": "sequence-classification", "labels": ["negative", "positive"], "max_length": max_length},
        "adapter": {"layers": layers},
        "privacy": {"sampling_rate": SAMPLING_RATE},
        "training": {"local_steps": STEPS},
    }
    return parse(Study, declared, where="benchmark")


def site_records(study: Study, count: int = RECORDS) -> Records:
    """Return the first records of the site, tokenised."""
    table = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    rows = table[table["site"] == SITE].head(count)
    kind = task_kind(study.task)
    cells = {"text": rows["text"].tolist(), "label": rows["label"].tolist()}
    return kind.encode(cells, kind.processor(find(study.model))).records
