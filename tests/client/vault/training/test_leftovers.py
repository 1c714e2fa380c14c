"""A failure at any line of a round, and the round after it, bit by bit beside that of a fresh vault."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from client.vault.training.round_trainer import RoundTrainer
from shared.adapted_model.model import AdaptedModel, build
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.records.ragged import Records as Dataset
from shared.records.ragged import with_units
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from tests.support.paths import ROOT

Studies, Records = Callable[..., Study], Callable[..., Dataset]
TRACED = tuple(str(ROOT / folder) for folder in ("client/vault/training/", "shared/adapted_model/", "shared/records/"))
Line = tuple[str, int]
VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {"adapter": {"layers": "last:1"}},
    "vectorised": {"adapter": {"method": "dora", "layers": "last:1"}, "federation": {"aggregation": "fedit"}},
    "units and moments": {
        "adapter": {"layers": "all"},
        "privacy": {"unit": "patient"},
        "training": {"whitening": True, "local_steps": 2},
    },
}


class FaultError(RuntimeError):
    """What a full disk, a device or a signal might raise."""


@contextmanager
def traced(seen: Callable[[Line], None], folders: tuple[str, ...]) -> Iterator[None]:
    """Calls `seen` before each line of code in some folders."""

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folders):
            return None
        if event == "line":
            seen((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def site(study: Study, model: AdaptedModel, records: Dataset, cache: Path) -> RoundTrainer:
    return RoundTrainer(
        study,
        model,
        records,
        declared_size=800,
        randomness=lambda number: SeededRandomnessForSimulation(7, number),
        cache=cache,
    )


def task(study: Study, model: AdaptedModel, number: int) -> TrainTask:
    adapter = 0.1 * np.random.default_rng(number).standard_normal(model.layout.length)
    return TrainTask(study.sha256, "run", number, adapter.astype(np.float32))


@pytest.mark.guarantee("no gradient of an earlier physical batch, finished or not, is added to a later one.")
@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_failure_at_any_line_leaves_nothing_to_the_next_round(
    make_study: Studies, make_records: Records, tmp_path: Path, variant: str, every: int
) -> None:
    declared = {"training": {"local_steps": 2}, "privacy": {"sampling_rate": 1.0}}
    changes = {
        name: declared.get(name, {}) | VARIANTS[variant].get(name, {}) for name in {*declared, *VARIANTS[variant]}
    }
    study, records = make_study(**changes), make_records(8)
    if study.privacy.unit != "record":
        records = with_units(records, np.arange(8) // 2)
    fresh = site(study, build(study), records, tmp_path / "fresh")
    expected = [fresh.attempt(task(study, fresh.model, number), fresh.release) for number in (1, 2)]
    assert all(reply.status is Status.TRAINED for reply in expected)

    lines = dict[Line, None]()
    model = build(study)
    counted = site(study, model, records, tmp_path / "counted")
    counted.refusal(task(study, model, 1))  # the probe is not part of a round
    asked, release = task(study, model, 1), counted.release
    folders = TRACED if variant == "linear" else TRACED[:1]
    with traced(lambda line: lines.setdefault(line), folders):
        counted.attempt(asked, release)
    outcomes = [failed_at(line, counted, study, expected, folders) for line in list(lines)[::every]]
    assert {Status.TRAINED, Status.FAILED} <= set(outcomes), "faults in one record's work, and in the round's"


def failed_at(
    line: Line, warm: RoundTrainer, study: Study, expected: list[TrainReply], folders: tuple[str, ...]
) -> Status | None:
    """Let round 1 fail once at a line, then train round 2; returns how round 1 was answered, if it was."""
    armed, release = [True], warm.release

    def seen(now: Line) -> None:
        if armed and now == line:
            armed.clear()
            raise FaultError(f"{line}")

    asked = task(study, warm.model, 1)
    first = None
    with suppress(FaultError), traced(seen, folders):  # `try` itself answers nothing: the round would be lost
        first = warm.attempt(asked, release)
    if armed:
        return None  # such as writing a cache that is there now
    where = f"{Path(line[0]).name}:{line[1]}"
    if first is not None and first.status is Status.TRAINED:
        assert first.update.tobytes() == expected[0].update.tobytes(), f"{where} changed round 1"
    second = warm.attempt(task(study, warm.model, 2), release)
    assert second.status is Status.TRAINED, f"after {where}"
    assert second.update.tobytes() == expected[1].update.tobytes(), f"{where} left something to round 2"
    return None if first is None else first.status
