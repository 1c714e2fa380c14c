"""The ledger: durable before it is spent, once per round, and never quietly another one."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from shared.errors import BudgetError, LedgerError, PolicyRefusal
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import register, rows_of

DELTA, ROUND = 1e-5, SubsampledGaussian(1.5, 0.1, 6)
Open = Callable[[], Ledger]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the same ledger again; whatever was open is let go first, as by a crash."""
    held: list[Ledger] = []

    def again() -> Ledger:
        while held:
            held.pop().close()
        held.append(Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "elsewhere" / "head.json"))
        return held[0]

    yield again
    while held:
        held.pop().close()


def approved(ledger: Ledger, *, epsilon: float = 3.0, run: str = "run", rounds: int = 4) -> Ledger:
    if "data" not in ledger.state.limits:
        register(ledger, "data", epsilon=epsilon, delta=DELTA)
    ledger.approve("data", run, study_sha256="s" * 64, rounds=rounds, per_round=ROUND)
    return ledger


def test_reserve_commit_and_resend_for_ever(opened: Open) -> None:
    ledger = approved(opened())
    ledger.reserve("run", 1)
    ledger.commit("run", 1, b"released")
    assert opened().answer("run", 1) == b"released" == opened().answer("run", 1)
    assert opened().state.spent("data") == epsilon_rdp([ROUND], DELTA)
    assert [row["kind"] for row in rows_of(opened())] == ["register", "approve", "reserve", "commit"]


@pytest.mark.guarantee("every round of a run is trained at most once; a crash in between leaves it charged and lost.")
def test_a_second_attempt_is_refused_and_a_crash_leaves_the_round_charged_and_lost(opened: Open) -> None:
    approved(opened()).reserve("run", 2)
    ledger = opened()
    assert 2 in ledger.state.runs["run"].attempts and ledger.answer("run", 2) is None
    assert ledger.state.spent("data") == epsilon_rdp([ROUND], DELTA)
    with pytest.raises(PolicyRefusal, match="first attempt"):
        ledger.reserve("run", 2)
    for number in (0, 5):
        with pytest.raises(PolicyRefusal, match="round of an open run"):
            ledger.reserve("run", number)
    assert list(ledger.state.runs["run"].attempts) == [2]


@pytest.mark.guarantee("bytes that no row calls released do not leave once their run is over.")
@pytest.mark.parametrize("end", [{"kind": "close", "run": "run"}, {"kind": "withdraw", "dataset": "data"}])
def test_bytes_without_their_row_do_not_leave_once_the_run_is_over(opened: Open, end: dict[str, str]) -> None:
    ledger = approved(opened())
    for number in (1, 2):
        ledger.reserve("run", number)
    ledger.commit("run", 1, b"released")
    ledger.outbox.keep("run", 2, b"masked")  # and a crash before its row
    ledger = opened()
    ledger.enter(end)
    height = ledger.height
    assert ledger.answer("run", 1) == b"released" and ledger.answer("run", 2) is None
    assert ledger.height == height and ledger.outbox.find("run", 2) is None


def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(opened: Open) -> None:
    ledger = approved(opened(), epsilon=3.0, rounds=2)
    fitting = ledger.state.budget("data").affordable_rounds(ROUND)
    with pytest.raises(BudgetError, match="epsilon=3 of 'data'"):
        approved(ledger, run="too-long", rounds=fitting + 1)
    assert ledger.height == 2
    approved(ledger, run="just-fits", rounds=fitting)
    assert ledger.state.budget("data").epsilon() <= 3.0 < epsilon_rdp([ROUND] * (fitting + 3), DELTA)


def test_closing_gives_back_only_what_was_not_reserved(opened: Open) -> None:
    ledger = approved(opened())
    ledger.reserve("run", 1)
    ledger.close_run("run")
    assert ledger.state.budget("data").epsilon() == ledger.state.spent("data") == epsilon_rdp([ROUND], DELTA)
    with pytest.raises(PolicyRefusal, match="open run"):
        ledger.reserve("run", 2)


def test_registering_again_resets_nothing_and_withdrawing_ends_everything(opened: Open) -> None:
    ledger = approved(opened())
    with pytest.raises(PolicyRefusal, match="not registered yet"):
        register(ledger, "data", epsilon=100.0, delta=DELTA)
    ledger.withdraw("data")
    for refused in (lambda: ledger.reserve("run", 1), lambda: approved(ledger, run="other")):
        with pytest.raises(PolicyRefusal, match="withdrawn"):
            refused()


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(f"DROP TRIGGER rows_stay; DROP TRIGGER rows_last; {statement}")
    database.close()


@pytest.mark.guarantee("a changed, missing or rolled-back row is found before anything is trained.")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET body = replace(body, '3.0', '9.0') WHERE height = 1",
        "UPDATE rows SET hash = 'x' WHERE height = 3",
        "DELETE FROM rows WHERE height = 2",
        "DELETE FROM rows WHERE height = 4",
        "DELETE FROM rows",
        "INSERT INTO rows SELECT 5, body, 'x' FROM rows WHERE height = 3",
    ],
)
def test_tampering_with_any_row_is_found(opened: Open, tmp_path: Path, statement: str) -> None:
    ledger = approved(opened())
    ledger.reserve("run", 1)
    ledger.commit("run", 1, b"released")
    ledger.close()
    damage(tmp_path / "node" / "ledger.db", statement)
    with pytest.raises(LedgerError) as raised:
        opened()
    assert "fedvault-node ledger --verify" in raised.value.hint


def test_rows_cannot_be_changed_by_accident(opened: Open) -> None:
    ledger = approved(opened())
    for statement in ("UPDATE rows SET body = ''", "DELETE FROM rows"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            ledger._database.execute(statement)


@pytest.mark.guarantee("a changed, missing or rolled-back row is found before anything is trained.")
def test_a_restored_older_copy_is_found(opened: Open, tmp_path: Path) -> None:
    approved(opened()).close()
    shutil.copytree(tmp_path / "node", tmp_path / "old-node")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "old-elsewhere")
    ledger = opened()
    for number in (1, 2):
        ledger.reserve("run", number)
    seen = ledger.position_with_mac
    ledger.close()
    replace(tmp_path / "old-node", tmp_path / "node")
    with pytest.raises(LedgerError, match="as its second copy says"):
        opened()
    replace(tmp_path / "old-elsewhere", tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="as the server saw it"):
        opened().check_server_copy(seen)
    with pytest.raises(LedgerError, match="as the server saw it"):
        opened().check_server_copy(opened().position)
    (tmp_path / "node" / "echo.json").unlink()
    opened().check_server_copy(opened().position)


def replace(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


@pytest.mark.parametrize("part", ["node", "elsewhere"])
def test_one_copy_without_the_other_is_refused(opened: Open, tmp_path: Path, part: str) -> None:
    approved(opened()).close()
    shutil.rmtree(tmp_path / part)
    with pytest.raises(LedgerError, match="second copy"):
        opened()


def test_a_second_process_does_not_open_it(opened: Open, tmp_path: Path) -> None:
    opened()
    with pytest.raises(LedgerError, match="only process"):
        Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "elsewhere" / "head.json")


def test_a_full_disk_stops_the_round_before_any_training(opened: Open) -> None:
    ledger = approved(opened(), epsilon=50.0, rounds=400)
    pages = ledger._database.execute("PRAGMA page_count").fetchone()[0]
    ledger._database.execute(f"PRAGMA max_page_count = {pages}")
    charged = 0
    with pytest.raises(LedgerError, match="full"):
        for number in range(1, 400):
            ledger.reserve("run", number)
            charged += 1
    with pytest.raises(LedgerError, match="earlier write failed"):
        ledger.close_run("run")
    assert len(opened().state.runs["run"].attempts) == charged


def test_other_bytes_in_the_outbox_are_never_sent(opened: Open, tmp_path: Path) -> None:
    ledger = approved(opened())
    ledger.reserve("run", 1)
    ledger.commit("run", 1, b"released")
    next((tmp_path / "node" / "outbox").iterdir()).write_bytes(b"other")
    with pytest.raises(LedgerError, match="Expected the released bytes"):
        opened().answer("run", 1)


def test_a_clock_that_was_set_back_stops_the_round_and_a_little_skew_does_not(opened: Open, tmp_path: Path) -> None:
    approved(opened()).close()
    moments = iter([datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) - timedelta(days=2)])
    path, second_copy = tmp_path / "node" / "ledger.db", tmp_path / "elsewhere" / "head.json"
    with closing(Ledger(path, second_copy=second_copy, now=lambda: next(moments))) as ledger:
        ledger.reserve("run", 1)
        with pytest.raises(LedgerError, match="Expected a clock"):
            ledger.reserve("run", 2)
        assert ledger.height == 3, "nothing was entered"


def test_files_are_the_owners_alone(opened: Open, tmp_path: Path) -> None:
    ledger = approved(opened())
    ledger.reserve("run", 1)
    ledger.commit("run", 1, b"released")
    written = [tmp_path / "node" / "ledger.db", tmp_path / "elsewhere" / "head.json", *tmp_path.glob("node/outbox/*")]
    assert [path.stat().st_mode & 0o777 for path in written] == [0o600] * 3
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700
