"""Every decision is a row of its own, the latest counts, and none of them moves an account."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import decided
from shared.errors import PolicyRefusal, SettingsError
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import register, rows_of

ROUND = SubsampledGaussian(1.5, 0.1, 6)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "head.json") as opened:
        register(opened, "ward", epsilon=3.0)
        yield opened


def approve(ledger: Ledger, run: str = "r-1", **words: str) -> None:
    ledger.approve("ward", run, study_sha256="5" * 64, rounds=2, per_round=ROUND, words=decided(**words))


def test_a_no_after_a_yes_is_a_row_and_rewrites_nothing(ledger: Ledger) -> None:
    approve(ledger, by="Ana", note="Within the plan.")
    before = ledger.state.budget("ward").epsilon()
    ledger.reject("r-1", decided("Ben", "Found no consent."))
    ledger.reject("r-1")
    first, *later = ledger.state.decisions["r-1"]
    assert (first.answer, first.by, first.note) == ("yes", "Ana", "Within the plan.") and first.time
    assert [(one.answer, one.by) for one in later] == [("no", "Ben"), ("no", "")]
    assert [row.get("by") for row in rows_of(ledger) if row["kind"] in ("approve", "reject")] == ["Ana", "Ben", None]
    assert ledger.state.budget("ward").epsilon() == before, "only the row that closes a run gives anything back"


def test_decisions_are_the_same_after_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    ledger.reject("r-2", decided("Ana"))
    approve(ledger, "r-2", note="After a call.")
    said = ledger.state.decisions
    ledger.close()
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "head.json") as again:
        assert again.state.decisions == said and again.state.answer("r-2") == "yes"


def test_a_decision_without_words_writes_the_row_that_it_always_wrote(ledger: Ledger) -> None:
    approve(ledger)
    (row,) = (row for row in rows_of(ledger) if row["kind"] == "approve")
    assert not {"by", "note"} & set(row)


def test_a_run_that_was_closed_is_not_approved_again(ledger: Ledger) -> None:
    approve(ledger)
    ledger.close_run("r-1")
    ledger.reject("r-1")
    with pytest.raises(PolicyRefusal, match="not approved before"):
        approve(ledger)


@pytest.mark.parametrize(("by", "note"), [("x" * 81, ""), ("", "x" * 501), ("two\nlines", ""), ("", "bell\a")])
def test_words_are_bounded_lines_that_can_be_printed(by: str, note: str) -> None:
    with pytest.raises(SettingsError, match="Expected a printable line of at most"):
        decided(by, note)
    assert decided(" Ana ", "  ") == {"by": "Ana"}
