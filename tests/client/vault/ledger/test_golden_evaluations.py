"""Ledgers with evaluations, as the code of their day wrote them, open for ever and cost what they cost then."""

import json
import runpy
import shutil
from pathlib import Path

import pytest

from client.vault.ledger.approval import take_roster
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import DatasetTerms, Evaluations, Limit, records_row, registration_row
from client.vault.ledger.state import LedgerState
from shared.privacy.accounting import epsilon_if_colluding, epsilon_rdp
from shared.privacy.releases import LargestSide, SharedCounts, Spending, from_dict, times
from tests.support.ledgers import rows_of

GOLDEN = Path(__file__).with_name("golden")
WRITTEN = runpy.run_path(str(GOLDEN / "make_evaluations.py"))
ROWS = {4: WRITTEN["ROWS_4"], 5: WRITTEN["ROWS_5"]}
HEADS = {
    4: "093e74b67302726d043baa694c5159e94e2bcf9a91bbe4a0eda2cc2bccc6a4c9",
    5: "fbafed2faaf02950595fc4a19a063c1ebcd6efb567fe544dd2e22fa1d99b664f",
}
DELTA = 1e-5
NEVER_COMPARED = ("height", "hash", "time", "salt", "orders")


@pytest.fixture
def old(tmp_path: Path, version: int) -> Path:
    """A node with a golden ledger and its second copy."""
    path = tmp_path / "ledger.db"
    shutil.copy(GOLDEN / f"ledger-v{version}.db", path)
    (tmp_path / "head.json").write_text(json.dumps({"height": len(ROWS[version]), "head": HEADS[version]}))
    return path


def opened(path: Path) -> Ledger:
    return Ledger(path, second_copy=path.with_name("head.json"))


def costs(state: LedgerState, run: str) -> tuple[Spending, Spending]:
    """Return the spending of a run that has reserved a round and an evaluation, and what the ledger says it is."""
    approved = state.run(run)
    assert approved.evaluations is not None
    trained, counted = times(approved.per_round, len(approved.attempts)), approved.evaluations
    (said,) = approved.spent()
    return LargestSide(((trained,), (times(counted.each, len(counted.attempts)),))), said


@pytest.mark.parametrize("version", [4, 5])
def test_a_ledger_with_evaluations_opens_says_the_same_and_goes_on(old: Path, version: int, tmp_path: Path) -> None:
    assert WRITTEN["write"](tmp_path / "again.db", version) == HEADS[version], "the file is the one that it writes"
    with opened(old) as ledger:
        assert (ledger.height, ledger.head) == (len(ROWS[version]), HEADS[version])
        said = [{name: row[name] for name in was} for row, was in zip(rows_of(ledger), ROWS[version], strict=True)]
        assert said == ROWS[version]
        state = ledger.state
        for run in state.runs:
            expected, cost = costs(state, run)
            assert cost == expected
        plain = state.run("plain").evaluations
        assert plain is not None and plain.attempts == {2: "e" * 64, 4: "e" * 64} and plain.failed == {4}
        ledger.reserve("plain", 3)
    with opened(old) as ledger:
        assert ledger.height == len(ROWS[version]) + 1


@pytest.mark.parametrize("version", [5])
def test_sums_of_evaluations_in_a_golden_ledger_cost_what_they_did(old: Path) -> None:
    with opened(old) as ledger:
        shared = ledger.state.run("shared")
        assert shared.survivors == {(2, "training"): "c" * 64, (2, "evaluation"): "f" * 64} and shared.closed
        assert shared.evaluations is not None and isinstance(shared.evaluations.each, SharedCounts)
        (spent,) = shared.spent()
    assert epsilon_rdp([spent], DELTA) == pytest.approx(FEW, rel=1e-4)
    assert epsilon_if_colluding([spent], DELTA) == pytest.approx(ALL, rel=1e-4)


FEW, ALL = 0.96897, 1.93900
"""By dp-accounting at whole orders: the larger side, of all noise and of one node's part."""


def test_the_code_of_today_writes_these_rows(tmp_path: Path) -> None:
    with Ledger(tmp_path / "new.db", second_copy=tmp_path / "head.json") as ledger:
        terms = DatasetTerms(declared_size=60, holdout=0.1, identity_version=2)
        ledger.enter(records_row("ward", (), None) | registration_row("ward", Limit(30.0, DELTA), terms))
        limits = {"ward": Limit(30.0, DELTA, float("inf"))}
        for row in ROWS[5][1:]:
            if row["kind"] == "approve":
                evaluations = Evaluations.of(row)
                ledger.approve(
                    "ward",
                    row["run"],
                    study_sha256=row["study_sha256"],
                    rounds=row["rounds"],
                    per_round=from_dict(row["per_round"]),
                    evaluations=evaluations,
                    declared=limits,
                )
            elif row["kind"] == "roster":
                take_roster(ledger, row["run"], row["roster_sha256"], **WRITTEN["SIZES"], declared=limits)
            else:
                ledger.enter(row)
        written = [{name: row[name] for name in row if name not in NEVER_COMPARED} for row in rows_of(ledger)]
    assert written == [{name: row[name] for name in row if name not in NEVER_COMPARED} for row in ROWS[5]]
