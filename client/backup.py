"""A backup of what a node cannot make again: ledger, record index, keys, snapshots, answers, settings."""

import sqlite3
import tarfile
import tempfile
from pathlib import Path

from client.vault.desk import Desk
from shared.errors import SettingsError

LEFT_OUT = frozenset({"cache", "logs", "run"})


def back_up(desk: Desk, archive: Path) -> None:
    """Write a .tar.gz readable by this user alone.

    Guarantee: a backup holds no second copy of the ledger's height, so restoring an old one is noticed, not believed.

    Raises:
        SettingsError: the archive is there already.
    """
    if archive.exists():
        raise SettingsError(f"Expected a new file, {archive} is there.")
    home = desk.folders.home
    archive.touch(mode=0o600)
    # the ledger's lock is held, so nothing is entered meanwhile
    with desk.ledger(), tempfile.TemporaryDirectory() as scratch, tarfile.open(archive, "w:gz") as tar:
        tar.add(desk.config, "node.toml")
        for path in sorted(home.rglob("*")):
            part = path.relative_to(home)
            if part.parts[0] in LEFT_OUT or not path.is_file() or path.name.endswith((".lock", "-wal", "-shm")):
                continue
            if path.resolve().is_relative_to(desk.folders.ledger_copy.resolve()):
                continue  # by a link
            source = _consistent(path, Path(scratch)) if path.suffix == ".db" else path
            tar.add(source, Path("home") / part)


def _consistent(path: Path, scratch: Path) -> Path:
    """A copy of a database with everything that its write-ahead log holds."""
    copy = scratch / path.name
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    return copy
