"""Peak memory of a training process: a private round beside a plain PEFT loop over the same micro-batches.

Each runs in a process of its own, with the libraries that it imports and the base model. The same tensors are trained.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.base_models.locate import find
from shared.records.batches import physical, shapes
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.tasks import SequenceClassification
from shared.tasks.registry import task_kind
from simulations.benchmarks.measure import Ratio, alternating, ratio_of
from simulations.benchmarks.memory.peak import in_own_process
from simulations.benchmarks.speed.drawn import Batches, draw
from simulations.benchmarks.speed.private_round import first_round
from simulations.benchmarks.speed.site import site_records, study_of
from simulations.benchmarks.stock.peft_model import Shapes, plain_round, refuse_other_tensors

TURNS, STEPS = 3, 4


def rows() -> Iterator[Ratio]:
    """Measure all layers, then the top two, where ours also computes and keeps every record's frozen activations."""
    for layers in ("all", "last:2"):
        study = study_of(layers)
        yield compared(study, site_records(study), turns=TURNS)


def compared(study: Study, records: Records, *, turns: int) -> Ratio:
    """Measure both peaks, turn by turn.

    Raises:
        RuntimeError: they do not train the same tensors.
    """
    task, adapter, base = study.task, study.adapter, find(study.model).directory
    if not isinstance(task, SequenceClassification):
        raise RuntimeError(f"Expected a study of sequence classification, got {task.kind!r}.")
    batches = draw(len(records), steps=STEPS, sampling_rate=study.privacy.sampling_rate)
    trained: dict[str, Shapes] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared, cut = Path(folder) / "records.npz", Path(folder) / "micro-batches.json"
        records.save(prepared)
        cut.write_text(json.dumps(micro_batches(study, records, batches)))

        def ours() -> float:
            trained["ours"], mib = in_own_process(first_round, study, prepared, batches)
            return mib

        def theirs() -> float:
            trained["theirs"], mib = in_own_process(
                plain_round, base, cut, len(task.labels), adapter.layers, adapter.rank
            )
            return mib

        pairs = alternating(ours, theirs, turns)
    refuse_other_tensors(trained["ours"], trained["theirs"])
    measure = f"peak memory of a private round, LoRA on {adapter.layers}"
    return ratio_of(measure, "plain PEFT loop", pairs, unit="MiB", aim="at most 1.05")


def micro_batches(study: Study, records: Records, batches: Batches) -> list[list[dict[str, list[object]]]]:
    """Cut logical batches as a private trainer does, in the form that `plain_round` reads."""
    sizes, tokens = shapes(records, task_kind(study.task).fills), study.performance.micro_batch_tokens
    return [
        [
            {
                "ids": [records["ids"][index].tolist() for index in part],
                "targets": [int(records["target"][index][0]) for index in part],
            }
            for part in physical(sizes, chosen, tokens=tokens)
        ]
        for chosen in batches
    ]
