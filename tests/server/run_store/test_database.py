"""The run store's database opens whatever version wrote it, or says why not."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from server.run_store.database import SCHEMA_VERSION, open_database
from server.run_store.store import Store
from shared.errors import RunError
from shared.protocol.messages import LedgerPosition
from shared.study.declaration import Study
from simulations.e2e.federation import free_port
from simulations.e2e.postgresql import PostgreSQL

Studies = Callable[..., Study]
OPENERS, TRIES = 4, 10
SOON = datetime.now(UTC) + timedelta(days=1)


def test_processes_that_open_a_new_store_at_once_all_find_it(url: str) -> None:
    processes = get_context("forkserver")
    together = processes.Barrier(OPENERS)
    with ProcessPoolExecutor(OPENERS, mp_context=processes, initializer=_wait_for_all, initargs=(together,)) as pool:
        for _ in range(TRIES):
            if url.startswith("sqlite"):
                shutil.rmtree(Path(url.removeprefix("sqlite:///")).parent, ignore_errors=True)
            assert list(pool.map(_version_on_opening, [url] * OPENERS)) == [str(SCHEMA_VERSION)] * OPENERS


def _wait_for_all(together: Barrier) -> None:
    global _together
    _together = together


def _version_on_opening(url: str) -> str:
    _together.wait(60)
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            return str(connection.execute(text("SELECT value FROM meta")).scalar_one())
    finally:
        engine.dispose()


def test_a_store_of_the_first_version_is_migrated(url: str, store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study()).id
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE runs DROP COLUMN reason"))
        connection.execute(text("ALTER TABLE nodes DROP COLUMN ledger_mac"))
        connection.execute(text("DROP TABLE meta"))
    engine.dispose()
    with Store(url) as migrated:
        assert migrated.run(run).reason == ""
        migrated.set_state(run, "failed", reason="why")
        assert migrated.run(run).reason == "why"


def test_a_store_of_the_second_version_is_migrated(url: str, store: Store) -> None:
    store.invite("ward", "hash", SOON)
    store.enrol("hash", "key", 7, datetime.now(UTC))
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE nodes ALTER COLUMN ledger_height TYPE INTEGER"))
        connection.execute(text("DROP TABLE numbers"))
        connection.execute(text("ALTER TABLE nodes DROP COLUMN ledger_mac"))
        connection.execute(text("UPDATE meta SET value = '1'"))
    engine.dispose()
    with Store(url) as migrated:
        assert migrated.names() == {7: "ward"}
        migrated.record_answer({}, run="r-1", node=7, position=LedgerPosition(10**12 - 1, "a" * 64))
        assert migrated.ledger_position(7).height == 10**12 - 1


def test_a_store_of_the_third_version_is_migrated_and_its_positions_bear_no_mac(url: str, store: Store) -> None:
    store.invite("ward", "hash", SOON)
    store.enrol("hash", "key", 7, datetime.now(UTC))
    store.record_answer({}, run="r-1", node=7, position=LedgerPosition(5, "a" * 64, "b" * 64))
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE nodes DROP COLUMN ledger_mac"))
        connection.execute(text("UPDATE meta SET value = '2'"))
    engine.dispose()
    with Store(url) as migrated:
        assert migrated.ledger_position(7) == LedgerPosition(5, "a" * 64)
        migrated.record_answer({}, run="r-1", node=7, position=LedgerPosition(6, "a" * 64, "b" * 64))
        assert migrated.ledger_position(7).mac == "b" * 64, "the server keeps what it is told"


def test_a_store_of_the_fourth_version_finds_a_node_by_its_number_without_reading_all(url: str, store: Store) -> None:
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_nodes_node_id"))
        connection.execute(text("UPDATE meta SET value = '3'"))
    Store(url).close()
    assert ["node_id"] in [index["column_names"] for index in inspect(engine).get_indexes("nodes")]
    engine.dispose()


def test_a_store_of_a_newer_version_is_left_alone(url: str, store: Store) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE meta SET value = :newer"), {"newer": str(SCHEMA_VERSION + 1)})
    engine.dispose()
    with pytest.raises(RunError, match="or older") as raised:
        Store(url)
    assert "Update" in raised.value.hint


def test_a_store_that_cannot_be_reached_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run store to open"):
        Store(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing")
    (tmp_path / "broken.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match="run store to open"):
        Store(f"sqlite:///{tmp_path / 'broken.db'}")


def test_a_connection_that_broke_while_nobody_used_it_is_replaced(store: Store) -> None:
    kept = store._engine.raw_connection()
    broken = kept.driver_connection
    kept.close()  # back into the pool
    assert broken is not None
    broken.close()  # as PostgreSQL does to all of them when it is restarted
    assert store.runs() == []


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_database_that_was_restarted_is_asked_again_as_if_nothing_had_been(
    url: str, store: Store, postgresql: PostgreSQL
) -> None:
    store.record_event("before", {}, run="r-1")
    postgresql.restart()
    store.record_event("after", {}, run="r-1")
    assert [event.kind for event in store.events("r-1")] == ["before", "after"]


def test_the_file_is_this_users_alone(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'fedvault.db'}") as store:
        store.record_event("x", {}, run="r-1")
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("fedvault.db*"))
    connection = sqlite3.connect(tmp_path / "fedvault.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
