"""An empty run store, on SQLite and on a real PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import create_engine, text

from server.run_store.store import Store
from simulations.e2e.federation import free_port


@pytest.fixture(scope="session")
def postgresql(not_here: Callable[[str], NoReturn]) -> Iterator[str]:
    """A PostgreSQL server of our own, on loopback, gone afterwards; a URL without a database."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = installed[-1] if installed else shutil.which("initdb")
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
