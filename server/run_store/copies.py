"""Copies a run store whole: into an SQLite file while others use it, and out of one into an empty database.

The file is SQLite whatever the store is. So a copy of an older version is migrated like any other store, and may go to
another kind of database than it came from.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from server.run_store.database import SQLITE, locked, open_database
from server.run_store.tables import Base, EventRow, MetaRow
from shared.errors import RunError, SettingsError

ROWS_AT_ONCE = 500


def save_copy(url: str, file: Path) -> None:
    """Write what a run store holds at one moment into a new SQLite file.

    Raises:
        RunError: the store cannot be read, or a newer version wrote it.
    """
    with _opened(url) as store:
        if url.startswith(SQLITE):
            with closing(sqlite3.connect(url.removeprefix(SQLITE))) as source, closing(sqlite3.connect(file)) as target:
                source.backup(target)
            return
        with (
            _opened(f"{SQLITE}{file}") as copy,
            store.connect().execution_options(isolation_level="REPEATABLE READ") as reading,
            copy.begin() as writing,
        ):
            _copy(reading, writing)


def load_copy(file: Path, url: str) -> None:
    """Fill an empty database from a copy, as one transaction; one that holds the very same is left as it is.

    Raises:
        SettingsError: the database holds something else.
        RunError: it cannot be reached, or a newer version wrote the copy.
    """
    with (
        _opened(f"{SQLITE}{file}") as copy,
        _opened(url) as store,
        copy.connect() as reading,
        locked(store) as writing,
    ):
        if not _is_empty(writing):
            if not _are_alike(reading, writing):
                raise SettingsError(
                    "Expected an empty database for the run store, got one that holds something else.",
                    hint="Name another one: --database URL. With --database '' it is a file in the server's folder.",
                )
            return
        _copy(reading, writing)
        if store.dialect.name == "postgresql":
            newest = select(func.max(EventRow.id)).scalar_subquery()
            writing.execute(select(func.setval(func.pg_get_serial_sequence(EventRow.__tablename__, "id"), newest)))


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    try:
        yield engine
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise RunError("Expected to copy the run store, got an error.", hint=str(error).splitlines()[0]) from None
    finally:
        engine.dispose()


def _copy(reading: Connection, writing: Connection) -> None:
    for table in _tables():
        rows = reading.execute(select(table).execution_options(yield_per=ROWS_AT_ONCE))
        for part in rows.mappings().partitions(ROWS_AT_ONCE):
            writing.execute(insert(table), [dict(row) for row in part])


def _is_empty(connection: Connection) -> bool:
    return not any(connection.execute(select(table).limit(1)).first() for table in _tables())


def _are_alike(one: Connection, other: Connection) -> bool:
    for table in _tables():
        query = select(table).order_by(*table.primary_key).execution_options(yield_per=ROWS_AT_ONCE)
        with one.execute(query) as rows, other.execute(query) as their_rows:
            if any(row != its_twin for row, its_twin in zip_longest(rows, their_rows)):
                return False
    return True


def _tables() -> list[Table]:
    """Return every table but the store's facts about itself, which opening it has written."""
    return [table for table in Base.metadata.sorted_tables if table.name != MetaRow.__tablename__]
