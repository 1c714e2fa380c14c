"""Small federations of several tasks at once and of a task without a head: prepared, trained, compared, exported."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shared.tasks.registry import task_kind
from simulations.experiment.scenario import Scenario
from simulations.progress import SilentProgress
from simulations.run import Run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT asks transformers for it
]
NAMES = {"kind": "token-classification", "labels": ["O", "B-PER"], "max_length": 16}
READING = {"kind": "question-answering", "max_length": 16}
SEVERAL = {"kind": "multi-task", "tasks": {"names": NAMES, "reading": READING}}
WORDS = {"kind": "masked-lm", "max_length": 16}


def table() -> pd.DataFrame:
    rows = [
        {
            "task": ("names", "reading")[n % 2],
            "text": f"word{n} good word{n % 7}",
            "tokens": f"ada lives word{n}",
            "tags": "B-PER O O",
            "question": f"who word{n % 5}",
            "context": f"ada lives in paris word{n}",
            "answer": "ada",
        }
        for n in range(48)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("task", "arms"),
    [(SEVERAL, ["majority", "untrained-head", "federated", "without-privacy"]), (WORDS, ["majority", "federated"])],
)
def test_a_federation_runs_to_its_report(
    text_bert: Path, tmp_path: Path, task: dict[str, Any], arms: list[str]
) -> None:
    table().to_csv(tmp_path / "table.csv", index=False)
    declared = {
        "study": {"name": "small"},
        "model": {"source": str(text_bert)},
        "task": task,
        "adapter": {"layers": "last:1", "rank": 2},
        "privacy": {"sampling_rate": 0.5},
        "training": {"local_steps": 1},
        "federation": {"rounds": 1, "smallest_declared_size": 4},
        "performance": {"threads": 1},
        "simulation": {
            "processes": 1,
            "arms": arms,
            "data": {"source": "table.csv", "partition": {"by": "iid", "sites": 2}, "holdout": 0.3},
        },
    }
    scenario = Scenario.model_validate(declared)
    run = Run(scenario, tmp_path / "table.csv", tmp_path / "run", SilentProgress())
    run.open(resume=False)
    result = run.execute()
    assert list(result.arms) == arms
    kind = task_kind(scenario.as_study().task)
    assert result.final.metric == kind.metric and result.final.higher_is_better == kind.higher_is_better
    assert all(len(arm.quality.per_site) == 2 for arm in result.arms.values())
    assert (tmp_path / "run" / "adapter" / "fedvault.json").exists()
