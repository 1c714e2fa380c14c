"""An empty run store, on SQLite and on a real PostgreSQL."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import create_engine, text

from server.run_store.store import Store
from shared.errors import SettingsError
from simulations.e2e.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="session", name="postgresql")
def _postgresql(not_here: Callable[[str], NoReturn]) -> Iterator[PostgreSQL]:
    """A PostgreSQL server of our own, on loopback, gone afterwards."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgresql(durable=False))
        except SettingsError as error:
            not_here(f"{error} {error.hint}")
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'fedvault.db'}"
    server, name = request.getfixturevalue("postgresql").url, f"test_{os.urandom(4).hex()}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened
