"""A ledger of an older version opens and says the same; one of a newer version does not open."""

import json
import runpy
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from client.vault.ledger import storage as ledger_file
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import decided
from client.vault.ledger.storage import MIGRATIONS, SCHEMA_VERSION
from shared.errors import LedgerError, PolicyRefusal
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import rows_of

GOLDEN = Path(__file__).with_name("golden") / "ledger-v1.db"
WRITTEN = runpy.run_path(str(GOLDEN.with_name("make_ledger_v1.py")))
ROWS = WRITTEN["ROWS"]
GOLDEN_2 = GOLDEN.with_name("ledger-v2.db")
WRITTEN_2 = runpy.run_path(str(GOLDEN.with_name("make_ledger_v2.py")))
ROWS_2, HEAD_2 = WRITTEN_2["ROWS"], "c232e8ae2a7ce97d3e8bba2dab613c92bb5fb8d1e13be5c954f343ee70667888"
HEAD = "182262a1275687ce7ef733797adefe1c98ef5220bf56a3d75190f1fb01516a5c"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A node with the golden ledger and its second copy."""
    path = tmp_path / "ledger.db"
    shutil.copy(GOLDEN, path)
    (tmp_path / "head.json").write_text(json.dumps({"height": len(ROWS), "head": HEAD}))
    return path


@pytest.fixture
def old_2(tmp_path: Path) -> Path:
    """A node with the golden ledger of version 2."""
    path = tmp_path / "ledger.db"
    shutil.copy(GOLDEN_2, path)
    (tmp_path / "head.json").write_text(json.dumps({"height": len(ROWS_2), "head": HEAD_2}))
    return path


def opened(path: Path) -> Ledger:
    return Ledger(path, second_copy=path.with_name("head.json"))


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def dumped(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def spent(rounds: int, delta: float) -> float:
    return epsilon_rdp([SubsampledGaussian(1.5, 0.1, 6 * rounds)], delta)


def test_the_golden_file_is_the_one_that_its_script_writes(tmp_path: Path) -> None:
    WRITTEN["write"](tmp_path / "again.db")
    assert dumped(tmp_path / "again.db") == dumped(GOLDEN) and version(GOLDEN) == 1
    WRITTEN_2["write"](tmp_path / "again.db")
    assert dumped(tmp_path / "again.db") == dumped(GOLDEN_2) and version(GOLDEN_2) == 2


@pytest.mark.guarantee("a ledger of every older version opens with the same rows, head and spending.")
def test_a_ledger_of_version_1_opens_says_the_same_and_goes_on(old: Path) -> None:
    with opened(old) as ledger:
        assert (ledger.height, ledger.head) == (len(ROWS), HEAD)
        assert [{name: row[name] for name in said} for row, said in zip(rows_of(ledger), ROWS, strict=True)] == ROWS
        state = ledger.state
        assert state.spent("ward") == state.spent("renamed") == spent(2, 1e-6), "one account, under the stricter delta"
        assert state.budget("ward").epsilon() == spent(2 + 3, 1e-6) and state.budget("ward").limit.epsilon == 2.5
        with pytest.raises(PolicyRefusal, match="withdrawn"):
            ledger.withdraw("gone")
        ledger.reserve("r-2", 1)
    with opened(old) as ledger:
        assert ledger.height == len(ROWS) + 1 and ledger.state.spent("ward") == spent(3, 1e-6)
    assert version(old) == SCHEMA_VERSION


def test_a_ledger_of_version_2_opens_says_the_same_and_goes_on(old_2: Path) -> None:
    with opened(old_2) as ledger:
        assert (ledger.height, ledger.head) == (len(ROWS_2), HEAD_2)
        state, round_ = ledger.state, SubsampledGaussian(1.5, 0.1, 6)
        assert state.spent("ward") == pytest.approx(epsilon_rdp([round_], 1e-5), rel=1e-3), "one round, lost or not"
        assert state.budget("ward").limit.epsilon == 2.5 and state.runs["r-1"].closed
        assert [decision.in_words for decision in state.decisions["r-1"]] == ["yes 2026-01-02"], "a yes was a row then"
        ledger.reject("r-1", decided("Ana", "Ended."))
    with opened(old_2) as ledger:
        assert ledger.height == len(ROWS_2) + 1 and ledger.state.answer("r-1") == "no"
    assert version(old_2) == SCHEMA_VERSION


@pytest.mark.parametrize("statement", ["INSERT OR REPLACE INTO rows VALUES (3, '{}', 'x')", "DELETE FROM rows"])
def test_what_version_1_let_pass_is_refused_afterwards(old: Path, statement: str) -> None:
    opened(old).close()
    with closing(sqlite3.connect(old)) as database, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)


def test_a_damaged_old_ledger_is_not_migrated(old: Path) -> None:
    with closing(sqlite3.connect(old)) as database:
        database.execute("INSERT OR REPLACE INTO rows VALUES (3, '{}', 'x')")
        database.commit()
    with pytest.raises(LedgerError, match="row 3 is not what it was"):
        opened(old)
    assert version(old) == 1


def test_a_migration_that_fails_leaves_the_old_version_whole(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIGRATIONS, 1, MIGRATIONS[1] + "DROP TABLE nowhere;")
    with pytest.raises(LedgerError, match="nowhere"):
        opened(old)
    assert version(old) == 1
    monkeypatch.undo()
    with opened(old) as ledger:
        assert ledger.height == len(ROWS)


def test_every_version_has_a_way_to_the_next() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


def test_a_migrated_ledger_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    opened(old).close()
    Ledger(tmp_path / "new.db", second_copy=tmp_path / "new.json").close()
    assert tables(old) == tables(tmp_path / "new.db")


def tables(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return set(database.execute("SELECT name, sql FROM sqlite_schema"))


def test_a_ledger_of_a_newer_version_says_to_update(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(old).close()
    monkeypatch.setattr(ledger_file, "SCHEMA_VERSION", SCHEMA_VERSION - 1)
    with pytest.raises(LedgerError, match="or older, got version") as raised:
        opened(old)
    assert "Update" in raised.value.hint
