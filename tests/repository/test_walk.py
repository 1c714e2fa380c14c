"""A round's walk through the house: how often the code of one training call returns to a room that it had left.

Counted are entries into a package of ours that had been entered and left before, by `sys.setprofile`, in the second
round of a study: the run is loaded, as in nearly all rounds. Code that nobody wrote is left out (generated methods of
dataclasses, comprehensions, lambdas). The same count on commit 1823b68, whose flat packages were named as today's rooms
for it, is 181; by that commit's own four packages it is 142.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

from client.vault.service.node_vault import NodeVault
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.protocol.messages import Status, TrainTask
from shared.study.declaration import Study
from shared.study.sections import Model
from tests.support.operators import approve_study

RETURNS_BEFORE = 181
PARTS = ("client", "server", "shared", "simulations")


def test_a_round_returns_to_rooms_that_it_left_at_most_half_as_often_as_it_did(
    tmp_path: Path, tiny_bert: Path, make_study: Callable[..., Study]
) -> None:
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    rows = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
    (tmp_path / "ward.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    policy = {"source": "ward.csv", "epsilon": 3.0, "delta": 1e-5, "declared_size": 54, "models": [fingerprint]}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in policy.items())
    config, models = tmp_path / "node.toml", tmp_path / "models"
    models.mkdir()
    (models / "tiny-bert").symlink_to(tiny_bert)  # alone: each further model is a further walk
    config.write_text(f'[node]\nmodels = "{models}"\n[datasets.ward]\n{lines}\n')
    study = make_study(
        model={"source": str(tiny_bert), "fingerprint": fingerprint},
        adapter={"layers": "last:1"},
        federation={"quorum": 3, "typical_size": 3000},  # so large that a step is one physical batch, as it was before
    )
    approve_study(config, study)
    vault, zeros = NodeVault(config), np.zeros(layout_of(study).length, np.float32)
    first, second = (TrainTask(study.sha256, "r-1", number, zeros) for number in (1, 2))
    assert vault.train(first).status is Status.TRAINED
    rooms = rooms_entered(lambda: vault.train(second).status is Status.TRAINED)
    assert {"client.vault.ledger", "client.vault.training", "shared.privacy"} <= set(rooms), "a whole round was seen"
    assert returns(rooms) <= RETURNS_BEFORE / 2


def test_returns_are_counted() -> None:
    assert returns(["a", "b", "a", "c", "b", "a"]) == 3
    assert returns(["a", "b", "c"]) == 0


def returns(rooms: list[str]) -> int:
    """How many of the rooms were entered before."""
    return sum(room in rooms[:place] for place, room in enumerate(rooms))


def rooms_entered(call: Callable[[], bool]) -> list[str]:
    """The rooms that a call enters, one after another; a room that it stays in counts once."""
    rooms: list[str] = []

    def look(frame: FrameType, event: str, _argument: object) -> None:
        module, code = str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname
        if event != "call" or module.split(".")[0] not in PARTS or "__create_fn__" in code or code.endswith(">"):
            return
        room = module.rpartition(".")[0]
        if not rooms or rooms[-1] != room:
            rooms.append(room)

    sys.setprofile(look)
    try:
        assert call()
    finally:
        sys.setprofile(None)
    return rooms
