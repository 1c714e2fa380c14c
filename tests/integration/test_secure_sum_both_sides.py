"""The server's rounds over the vault's own pieces of a secure sum: what one side says the other understands."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.rounds import participants
from server.rounds.checkpoints import Checkpoints
from server.secure_sum import opening
from server.secure_sum.files import SumFiles
from tests.support.killed_between import Killed, killed_after
from tests.support.sum_both_sides import BothSides
from tests.support.sum_nodes import LENGTH, NAMES


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BothSides:
    monkeypatch.setattr(participants, "POLL_S", 0.001)
    monkeypatch.setattr(opening, "LONGEST_POLL_S", 0.001)
    return BothSides(tmp_path)


def summed(names: Sequence[str]) -> list[int]:
    return [sum(10 ** NAMES.index(name) * k for name in names) for k in range(LENGTH)]


def test_vaults_and_server_open_the_sum_of_all_round_after_round(both: BothSides) -> None:
    state = both.drive()
    assert [record["outcome"] for record in state.records] == ["aggregated"] * 2
    assert {number: total.tolist() for number, total in both.totals.items()} == dict.fromkeys((1, 2), summed(NAMES))
    rows = ["register", "approve", "roster", *["reserve", "commit", "survivors"] * 2]
    assert all(vault.node.row_kinds() == rows for vault in both.vaults)


def test_a_node_that_failed_is_in_no_sum_and_paid(both: BothSides) -> None:
    both.vaults[1].node.trainer.fails = True
    state = both.drive()
    others = [name for name in NAMES if name != both.vaults[1].name]
    assert state.records[0]["refused"] == [{"node": both.vaults[1].number, "status": "failed"}]
    assert both.totals[1].tolist() == summed(others)


@pytest.mark.parametrize("save", [1, 2])
def test_a_server_that_was_killed_before_the_checkpoint_opens_the_same_sum_again(
    both: BothSides, monkeypatch: pytest.MonkeyPatch, save: int
) -> None:
    with killed_after(save, [(Checkpoints, ("save",))], monkeypatch), pytest.raises(Killed):
        both.drive()
    first = {number: total.tolist() for number, total in both.totals.items()}
    both.drive()
    assert {number: both.totals[number].tolist() for number in first} == first
    assert all(vault.node.row_kinds().count("survivors") == 2 for vault in both.vaults)


def test_a_server_that_lost_what_it_had_fixed_cannot_open_a_second_set(
    both: BothSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(1, [(Checkpoints, ("save",))], monkeypatch), pytest.raises(Killed):
        both.drive()
    for file in SumFiles(both.folder / "sum").folder.glob("round-*"):
        file.unlink()
    away = both.vaults[3]
    away.present = False
    state = both.drive()
    assert state.records[0]["outcome"] == "lost" and "refused_survivors" in both.body("lost")["reason"]
    assert both.totals[1].tolist() == summed(NAMES), "the first set's sum, and no other"


def test_a_node_whose_keys_are_gone_is_out_and_the_others_go_on(
    both: BothSides, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(2, [(Checkpoints, ("save",))], monkeypatch), pytest.raises(Killed):
        both.drive()
    # round 2 was fixed; the first node comes back from a backup, which has no keys of runs
    shutil.rmtree(both.vaults[0].node.folder / "secure_sum")
    state = both.drive()
    assert [record["outcome"] for record in state.records] == ["aggregated"] * 2
    assert both.totals[2].tolist() == summed(NAMES)
