"""Opens the run store's database: its file, its connections and its schema, migrated from an older version."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.run_store.tables import Base, MetaRow
from shared.errors import RunError
from shared.protocol.messages import NO_MAC

SCHEMA_VERSION = 3
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
}
"""Statements that lead from a version to the next, each with the kind of database that needs it."""
BUSY_S = 10
SQLITE = "sqlite:///"


def open_database(url: str) -> Engine:
    """Connect to the database and make its tables what this version expects.

    Args:
        url: SQLAlchemy's; `sqlite:///path` or `postgresql+psycopg://…`.

    Raises:
        RunError: it cannot be reached, or was written by a newer version.
    """
    if url.startswith(SQLITE):
        _create_file(Path(url.removeprefix(SQLITE)))
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


def _create_file(path: Path) -> None:
    """Create the file before SQLite does, so that it is this user's alone from its first moment."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def _connect(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _pragmas(connection: Any, _record: Any) -> None:
            for pragma in ("journal_mode = WAL", f"busy_timeout = {BUSY_S * 1000}", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def _migrate(engine: Engine) -> None:
    tables = inspect(engine).get_table_names()
    with Session(engine) as session, session.begin():
        if "meta" in tables:
            version = int(session.get_one(MetaRow, "schema").value)
        else:
            version = 0 if "runs" in tables else SCHEMA_VERSION
        if version > SCHEMA_VERSION:
            raise RunError(
                f"Expected a run store of version {SCHEMA_VERSION} or older, got version {version}.",
                hint="A newer FedVault wrote it. Update this one.",
            )
        for step in range(version, SCHEMA_VERSION):
            for kind, statement in MIGRATIONS[step]:
                if kind in (ANY_DATABASE, engine.dialect.name):
                    session.execute(text(statement))
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.merge(MetaRow(key="schema", value=str(SCHEMA_VERSION)))
