"""Runs a PostgreSQL server of our own on loopback, where one is installed: for tests, and to measure beside SQLite."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import SettingsError
from simulations.e2e.federation import free_port


class PostgreSQL(NamedTuple):
    """A server that runs."""

    url: str
    """Without a database."""
    pid: int
    """Of its first process, whose children do the work."""
    restart: Callable[[], object]
    """Restarts it as an update does: whoever is connected is cut off. It then has another process id."""


@contextmanager
def postgresql(*, durable: bool) -> Iterator[PostgreSQL]:
    """Run a server until the block ends; its folder is then gone.

    Args:
        durable: a commit waits for the disk, as in a deployment.

    Raises:
        SettingsError: PostgreSQL is not installed.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = installed[-1] if installed else shutil.which("initdb")
    if initdb is None:
        raise SettingsError(
            "Expected PostgreSQL to be installed, it is not.",
            hint="It runs where Debian's postgresql is (apt-get install).",
        )
    # PostgreSQL does not run as root
    owner: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="fedvault-postgresql-"))
    if owner:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **owner)
    run([initdb, "-D", folder / "data", "-A", "trust", "-U", "fedvault", "-N"])
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync={'on' if durable else 'off'} -k {folder}"
    pg_ctl = [str(Path(initdb).parent / "pg_ctl"), "-D", str(folder / "data")]
    started = ["-w", "-o", options, "-l", str(folder / "log")]
    run([*pg_ctl, *started, "start"])
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        restart = partial(run, [*pg_ctl, *started, "-m", "fast", "restart"])
        yield PostgreSQL(f"postgresql+psycopg://fedvault@127.0.0.1:{port}", pid, restart)
    finally:
        run([*pg_ctl, "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)
