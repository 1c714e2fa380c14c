"""The run store, on SQLite and on a real PostgreSQL."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import create_engine, text

from server.run_store import SCHEMA_VERSION, Store
from shared.errors import PolicyRefusal, RunError, SettingsError
from shared.protocol.messages import NO_POSITION, LedgerPosition
from shared.study.declaration import Study
from simulations.e2e.federation import free_port

Studies = Callable[..., Study]
SOON = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="session")
def postgresql(not_here: Callable[[str], NoReturn]) -> Iterator[str]:
    """A PostgreSQL server of our own, on loopback, gone afterwards; a URL without a database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        not_here("PostgreSQL is not installed; it runs where Debian's postgresql is (apt-get install)")
    binaries = Path(initdb).parent
    # PostgreSQL does not run as root
    owner: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="fedvault-postgresql-"))
    if owner:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([initdb, "-D", folder / "data", "-A", "trust", "-U", "fedvault", "-N"], **quiet, **owner)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    pg_ctl = [str(binaries / "pg_ctl"), "-D", str(folder / "data")]
    subprocess.run([*pg_ctl, "-w", "-o", options, "-l", str(folder / "log"), "start"], **quiet, **owner)
    try:
        yield f"postgresql+psycopg://fedvault@127.0.0.1:{port}"
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], **quiet, **owner)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'fedvault.db'}"
    server, name = request.getfixturevalue("postgresql"), f"test_{os.urandom(4).hex()}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened


def record(number: int, **changes: Any) -> dict[str, Any]:
    plain = {"round": number, "outcome": "aggregated", "accepted": [1, 2]}
    return plain | changes


def test_what_is_written_is_there_for_the_next_process(url: str, store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study())
    store.record_round(run.id, record(1), {"accuracy": 0.5})
    store.record_round(run.id, record(1, outcome="skipped"), None)
    store.record_round(run.id, record(2), None)
    store.happened("stances", {"approved": 2}, run=run.id)
    with Store(url) as again:
        found = again.run(run.id[:10])
        assert (found.id, found.round, found.rounds, found.state) == (run.id, 2, 3, "queued")
        assert found.study == make_study()
        assert again.rounds(run.id) == [(record(1), {"accuracy": 0.5}), (record(2), None)], "the first telling counts"
        (event,) = again.events(run.id)
        assert (event.kind, event.body) == ("stances", {"approved": 2}) and again.events(run.id, after=event.id) == []


def test_one_run_at_a_time_the_oldest_first_and_a_running_one_before_all(store: Store, make_study: Studies) -> None:
    assert store.next_wanted() is None
    first, second = store.create_run(make_study()), store.create_run(make_study())
    found = store.next_wanted()
    assert found is not None and found.id == min((first, second), key=lambda run: (run.created, run.id)).id
    store.set_state(second.id, "running")
    assert [run.id for run in [store.next_wanted()] if run] == [second.id]
    store.want(second.id, wanted=False)
    assert store.stop_unwanted() == [second.id] and store.stop_unwanted() == []
    assert [run.id for run in [store.next_wanted()] if run] == [first.id]
    store.want(first.id, wanted=False)
    assert store.run(first.id).state == "stopped" and store.next_wanted() is None
    store.want(second.id, wanted=True)
    assert [run.id for run in [store.next_wanted()] if run] == [second.id]
    store.set_state(second.id, "failed", reason="why")
    assert store.run(second.id).reason == "why" and store.next_wanted() is None


def test_runs_are_named_by_an_unambiguous_beginning(store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study())
    store.create_run(make_study())
    assert store.run(run.id).id == run.id
    for wrong in ("r-", "nothing", "%", "_"):
        with pytest.raises(SettingsError, match="name of one run"):
            store.run(wrong)


def test_an_echo_never_goes_back(store: Store) -> None:
    store.invite("ward", "hash", SOON)
    big = 2**64 - 1
    store.enrol("hash", "key", big, datetime.now(UTC))
    assert store.last(big) == NO_POSITION == store.last(7)
    store.saw(big, LedgerPosition(5, "a" * 64))
    store.saw(big, LedgerPosition(4, "b" * 64))
    assert store.last(big) == LedgerPosition(5, "a" * 64)
    store.renumber("ward", 9)
    assert store.last(9) == LedgerPosition(5, "a" * 64), "it belongs to the node, not to Flower's number for it"


def test_a_ledgers_height_may_have_twelve_digits_and_a_mark_that_cannot_be_kept_ends_nothing(
    url: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.invite("ward", "hash", SOON)
    store.enrol("hash", "key", 7, datetime.now(UTC))
    store.saw(7, LedgerPosition(10**12 - 1, "a" * 64))
    assert store.last(7) == LedgerPosition(10**12 - 1, "a" * 64)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE nodes RENAME TO away"))
    store.saw(7, LedgerPosition(10**12 - 1, "b" * 64))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO nodes"))
    engine.dispose()
    assert "The ledger mark of node 7 was not kept" in caplog.text
    assert store.last(7) == LedgerPosition(10**12 - 1, "a" * 64)


def test_a_node_is_known_by_every_number_that_flower_gave_it(store: Store) -> None:
    for name, number in (("ward", 1), ("lab", 2)):
        store.invite(name, name, SOON)
        store.enrol(name, name, number, datetime.now(UTC))
    store.renumber("ward", 2**64 - 1)
    assert store.names() == {1: "ward", 2: "lab", 2**64 - 1: "ward"}


def test_one_key_one_node(store: Store) -> None:
    for name in ("one", "two"):
        store.invite(name, name, SOON)
    store.enrol("one", "key", 1, datetime.now(UTC))
    with pytest.raises(PolicyRefusal):
        store.enrol("two", "key", 2, datetime.now(UTC))
    assert [(node.name, bool(node.enrolled)) for node in store.nodes()] == [("one", True), ("two", False)]


def test_of_many_that_use_one_invite_one_wins(url: str, store: Store) -> None:
    store.invite("ward", "hash", SOON)
    won, lost = list[int](), list[int]()

    def enrol(number: int) -> None:
        with Store(url) as own:
            try:
                own.enrol("hash", f"key {number}", number, datetime.now(UTC))
                won.append(number)
            except PolicyRefusal:
                lost.append(number)

    threads = [threading.Thread(target=enrol, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 3
    assert store.nodes()[0].public_key == f"key {won[0]}"


def test_several_processes_write_at_once(url: str, store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study()).id

    def write(first: int) -> None:
        with Store(url) as own:
            for number in range(first, first + 10):
                own.happened("answered", {"n": number}, run=run)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event.body["n"] for event in store.events(run)) == list(range(30))


def test_a_store_of_the_first_version_is_migrated(url: str, store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study()).id
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE runs DROP COLUMN reason"))
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
        connection.execute(text("UPDATE meta SET value = '1'"))
    engine.dispose()
    with Store(url) as migrated:
        assert migrated.names() == {7: "ward"}
        migrated.saw(7, LedgerPosition(10**12 - 1, "a" * 64))
        assert migrated.last(7).height == 10**12 - 1


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


def test_the_file_is_this_users_alone(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'fedvault.db'}") as store:
        store.happened("x", {})
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("fedvault.db*"))
    connection = sqlite3.connect(tmp_path / "fedvault.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
