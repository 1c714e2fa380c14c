"""Backing up what a node cannot make again: ledger, record index, keys, snapshots, released updates, settings.

Keys of secure sums stay out: who has them twice could be made to answer twice. Personal adapters do too: they were made
without privacy, and can be made again.
"""

import contextlib
import hashlib
import sqlite3
import tarfile
import tempfile
from pathlib import Path

from client.vault.review.node_files import NodeFiles
from shared.errors import SettingsError
from shared.files import private_file

LEFT_OUT = frozenset({"cache", "logs", "personal", "run", "secure_sum"})


def back_up(node: NodeFiles, archive: Path) -> None:
    """Write a .tar.gz readable by this user alone.

    Guarantee: a backup holds no key of a secure sum, so a restored node takes no further part in it.
    Guarantee: a backup holds no second copy of the ledger's height, so restoring an old one is noticed, not believed.

    Raises:
        SettingsError: the archive is there already.
    """
    if archive.exists():
        raise SettingsError(f"Expected a new file, {archive} is there.")
    home = node.folders.home
    with (
        private_file(archive) as unfinished,
        tempfile.TemporaryDirectory() as scratch,
        tarfile.open(unfinished, "w:gz") as tar,
    ):
        # copied under the ledger's lock, archived without it: a round need not wait for the snapshots. What is
        # released meanwhile is not in the copied ledger: restored, that one is behind its second copy, and noticed
        with node.open_ledger() as ledger:
            released = ledger.released_files_to_back_up()
            copies = {path: _consistent(path, Path(scratch)) for path in _files_to_keep(node) if path.suffix == ".db"}
        tar.add(node.config, "node.toml")
        for path in _files_to_keep(node):
            if path.parent == node.folders.ledger.with_name("outbox") and path not in released:
                continue  # nobody asks for it after a crash
            with contextlib.suppress(FileNotFoundError):  # withdrawn meanwhile
                tar.add(copies.get(path, path), Path("home") / path.relative_to(home))


def _files_to_keep(node: NodeFiles) -> list[Path]:
    home, second_copy = node.folders.home, node.folders.ledger_copy.resolve()
    return [
        path
        for path in sorted(home.rglob("*"))
        if path.relative_to(home).parts[0] not in LEFT_OUT
        and path.is_file()
        and not path.name.endswith((".lock", "-wal", "-shm"))
        and not path.resolve().is_relative_to(second_copy)  # by a link
    ]


def _consistent(path: Path, scratch: Path) -> Path:
    """Copy a database with everything that its write-ahead log holds."""
    copy = scratch / hashlib.sha256(str(path).encode()).hexdigest()
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    return copy
