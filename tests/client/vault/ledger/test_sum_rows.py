"""One roster a run, one set of survivors a sum: the ledger refuses the second, whatever happens in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import LedgerState
from shared.errors import PolicyRefusal
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import register

SIZES = {"nodes": 4, "threshold": 3, "colluders": 1}
ROSTER = {"kind": "roster", "run": "r-1", "roster_sha256": "a" * 64, **SIZES}
SURVIVORS = {"kind": "survivors", "run": "r-1", "round": 1, "purpose": "training", "sha256": "b" * 64}


def opened(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.db", second_copy=folder / "second" / "head.json")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        register(ledger, "ward", epsilon=3.0)
        per_round = SubsampledGaussian(2.0, 0.1, 4)
        ledger.approve("ward", "r-1", study_sha256="s" * 64, rounds=5, per_round=per_round)
        yield ledger


def released(ledger: Ledger, number: int = 1) -> None:
    ledger.reserve("r-1", number)
    ledger.commit("r-1", number, b"bytes")


@pytest.mark.guarantee("a run's secure sum has one roster, and a sum one set of survivors, for ever.")
def test_a_second_roster_and_a_second_set_of_survivors_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.enter(ROSTER)
    released(ledger)
    ledger.enter(SURVIVORS)
    ledger.close()
    with opened(tmp_path) as again:
        run = again.state.run("r-1")
        assert run.roster == "a" * 64 and run.survivors == {(1, "training"): "b" * 64}
        for second in (ROSTER, ROSTER | {"roster_sha256": "c" * 64}):
            with pytest.raises(PolicyRefusal, match="an open run without a roster"):
                again.enter(second)
        for second in (SURVIVORS, SURVIVORS | {"sha256": "c" * 64}):
            with pytest.raises(PolicyRefusal, match="without survivors yet"):
                again.enter(second)
        assert again.state.spent("ward") > 0 and again.height == 6


def test_a_run_that_is_over_takes_no_roster(ledger: Ledger) -> None:
    ledger.close_run("r-1")
    with pytest.raises(PolicyRefusal, match="an open run without a roster"):
        ledger.enter(ROSTER)


def test_survivors_are_of_a_round_whose_bytes_were_released(ledger: Ledger) -> None:
    released(ledger, 2)
    with pytest.raises(PolicyRefusal, match="without survivors yet"):
        ledger.enter(SURVIVORS | {"round": 2})  # no roster
    ledger.enter(ROSTER)
    for number in (1, 3):
        with pytest.raises(PolicyRefusal, match="without survivors yet"):
            ledger.enter(SURVIVORS | {"round": number})
        ledger.reserve("r-1", number)
        with pytest.raises(PolicyRefusal, match="without survivors yet"):
            ledger.enter(SURVIVORS | {"round": number})


def test_a_round_that_failed_has_no_survivors(ledger: Ledger) -> None:
    ledger.enter(ROSTER)
    ledger.reserve("r-1", 1)
    ledger.fail("r-1", 1)
    ledger.commit("r-1", 1, b"zeros")
    with pytest.raises(PolicyRefusal, match="without survivors yet"):
        ledger.enter(SURVIVORS)


def test_rows_of_a_secure_sum_cost_nothing(ledger: Ledger) -> None:
    before = ledger.state.budget("ward").epsilon()
    ledger.enter(ROSTER)
    assert ledger.state.budget("ward").epsilon() == before


@pytest.mark.parametrize("row", [ROSTER, SURVIVORS])
def test_a_run_that_nobody_approved_has_no_secure_sum(row: dict[str, object]) -> None:
    with pytest.raises(PolicyRefusal, match="an approved run"):
        LedgerState().apply(row)
