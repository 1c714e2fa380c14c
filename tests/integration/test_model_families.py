"""Families of base models from the folder to the export: each trains privately and exactly, or is refused by name."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.vault.training.round_trainer import RoundTrainer
from server.export.adapter import export, load_finished
from shared.adapted_model.dry_run import rehearse
from shared.adapted_model.model import build, initial_adapter, layout_of
from shared.errors import ExactnessError, SettingsError
from shared.protocol.messages import Status, TrainTask
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from tests.support.model_families import FAMILIES, REFUSED, TASKS, make_folder

ALL = [(kind, family) for kind, families in FAMILIES.items() for family in families]


def study(kind: str, folder: Path) -> Study:
    declared: dict[str, Any] = {
        "study": {"name": "test"},
        "model": {"source": str(folder)},
        "task": {"kind": kind} | TASKS[kind][0],
        "adapter": {"layers": "all", "rank": 2},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.5},
        "training": {"local_steps": 1},
        "federation": {"rounds": 1, "smallest_declared_size": 4},
    }
    return parse(Study, declared, where="test")


def trainer_of(declared: Study) -> RoundTrainer:
    model = build(declared)
    records = model.kind.synthetic(model.config, [5, 9, 24, 7, 8, 6], variant=0)
    randomness = lambda number: SeededRandomnessForSimulation(1, "arm", "site", number)  # noqa: E731
    return RoundTrainer(declared, model, records, declared_size=6, randomness=randomness)


def test_every_task_kind_has_families_and_there_are_more_than_forty() -> None:
    assert FAMILIES.keys() == TASKS.keys()
    assert len(set(chain(*FAMILIES.values()))) >= 40
    assert all(len(families) >= 5 for kind, families in FAMILIES.items() if kind != "speech-recognition")
    assert not set(ALL) & REFUSED.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), ALL)
def test_a_family_is_probed_takes_a_private_step_and_is_exported(kind: str, family: str, tmp_path: Path) -> None:
    make_folder(kind, family, tmp_path / "base")
    declared = study(kind, tmp_path / "base")
    assert layout_of(declared).length > 0
    start = initial_adapter(declared)
    trainer = trainer_of(declared)
    rehearse(trainer.model)
    trainer._show_exact()
    assert trainer._verdict is not None and trainer._verdict.worst < 2e-5
    reply = trainer.train(TrainTask(declared.sha256, "run", 1, start))
    assert reply.status is Status.TRAINED and reply.update is not None
    finished = start + np.asarray(reply.update, np.float32)
    export(declared, finished, tmp_path / "out")
    assert np.array_equal(load_finished(tmp_path / "out").model.packed(), finished)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), REFUSED)
def test_any_other_family_is_refused_by_name(kind: str, family: str, tmp_path: Path) -> None:
    make_folder(kind, family, tmp_path / "base")
    declared, sentence = study(kind, tmp_path / "base"), REFUSED[kind, family].format(family)
    with pytest.raises((SettingsError, ExactnessError), match=sentence) as refusal:
        layout_of(declared)
        trainer_of(declared)._show_exact()
    assert refusal.value.hint
    assert (refusal.type is ExactnessError) == ("is a '" in sentence), "what is known before is refused before"
