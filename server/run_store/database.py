"""Opens the run store's database: its file, its connections and its schema, migrated from an older version."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.run_store.tables import Base, MetaRow
from shared.errors import RunError
from shared.files import write_private_once
from shared.protocol.messages import NO_MAC

SCHEMA_VERSION = 4
ANY_DATABASE = ""
MIGRATIONS: dict[int, tuple[tuple[str, str], ...]] = {
    0: ((ANY_DATABASE, "ALTER TABLE runs ADD COLUMN reason TEXT NOT NULL DEFAULT ''"),),
    1: (
        # SQLite keeps 64 bits in any column that holds whole numbers
        ("postgresql", "ALTER TABLE nodes ALTER COLUMN ledger_height TYPE BIGINT"),
        (
            ANY_DATABASE,
            "CREATE TABLE IF NOT EXISTS numbers (node_id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL)",
        ),
        (
            ANY_DATABASE,
            "INSERT INTO numbers SELECT node_id, name FROM nodes WHERE node_id IS NOT NULL ON CONFLICT DO NOTHING",
        ),
    ),
    2: ((ANY_DATABASE, f"ALTER TABLE nodes ADD COLUMN ledger_mac VARCHAR NOT NULL DEFAULT '{NO_MAC}'"),),
    3: ((ANY_DATABASE, "CREATE INDEX IF NOT EXISTS ix_nodes_node_id ON nodes (node_id)"),),
}
"""Statements that lead from a version to the next, each with the kind of database that needs it."""
LOCKS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": f"SELECT pg_advisory_xact_lock({int.from_bytes(b'FedVault')})"}
"""What keeps a second process out of the tables until the transaction ends, by kind of database."""
BUSY_S = 10
SQLITE = "sqlite:///"
WRITE_AHEAD = "PRAGMA journal_mode = WAL"


def open_database(url: str) -> Engine:
    """Connect to the database and make its tables what this version expects.

    Args:
        url: SQLAlchemy's; `sqlite:///path` or `postgresql+psycopg://…`.

    Raises:
        RunError: it cannot be reached, or was written by a newer version.
    """
    if url.startswith(SQLITE):
        create_sqlite_file(Path(url.removeprefix(SQLITE)))
    engine = _connect(url)
    try:
        _migrate(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        reason = str(error).splitlines()[0]
        raise RunError("Expected the run store to open, it did not.", hint=reason) from None
    except RunError:
        engine.dispose()
        raise
    return engine


def create_sqlite_file(path: Path) -> None:
    """Put an empty database in its place, whole: this user's alone and write-ahead from its first moment.

    SQLite refuses at once, whatever its time limit, where two connections turn one file into a write-ahead one.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with TemporaryDirectory() as folder:
        empty = Path(folder) / path.name
        with closing(sqlite3.connect(empty)) as database:
            database.execute(WRITE_AHEAD)
        write_private_once(path, empty.read_bytes())


def _connect(url: str) -> Engine:
    # a connection that broke while nobody used it, as when PostgreSQL was restarted, is replaced and not reported
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _pragmas(connection: Any, _record: Any) -> None:
            for pragma in (f"PRAGMA busy_timeout = {BUSY_S * 1000}", WRITE_AHEAD, "PRAGMA foreign_keys = ON"):
                connection.execute(pragma)

    return engine


def _migrate(engine: Engine) -> None:
    """Make or change the tables as one transaction, one process at a time: a server starts beside its health check."""
    with locked(engine) as connection:
        version = _version(connection)
        for step in range(version, SCHEMA_VERSION):
            for kind, statement in MIGRATIONS[step]:
                if kind in (ANY_DATABASE, engine.dialect.name):
                    connection.execute(text(statement))
        Base.metadata.create_all(connection)
        with Session(connection) as session:
            session.merge(MetaRow(key="schema", value=str(SCHEMA_VERSION)))
            session.flush()


@contextmanager
def locked(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that no other process may run beside."""
    with engine.begin() as connection:
        connection.execute(text(LOCKS[engine.dialect.name]))
        yield connection


def _version(connection: Connection) -> int:
    """The version that wrote the tables; this one's where there are none."""
    tables = inspect(connection).get_table_names()
    if "meta" not in tables:
        return 0 if "runs" in tables else SCHEMA_VERSION
    with Session(connection) as session:
        version = int(session.get_one(MetaRow, "schema").value)
    if version > SCHEMA_VERSION:
        raise RunError(
            f"Expected a run store of version {SCHEMA_VERSION} or older, got version {version}.",
            hint="A newer FedVault wrote it. Update this one.",
        )
    return version
