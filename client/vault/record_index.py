"""Which records belong to which dataset, as keyed hashes: identity is the data's, not a name's.

A dataset that is renamed, edited or registered anew shares records with what was there before, and so its budget. The
key is this node's secret and the hashes never leave: with them alone nobody learns a record, not even by guessing.

Two records are the same here if their texts are, after Unicode normalisation, in any case and spacing, and whatever
their labels. Near-duplicates are not found.
"""

import hashlib
import os
import sqlite3
import unicodedata
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from shared.errors import LedgerError

KEY_BYTES = 32
HASH_BYTES = 16
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (hash BLOB NOT NULL, dataset TEXT NOT NULL, PRIMARY KEY (hash, dataset))
STRICT, WITHOUT ROWID
"""


class RecordIndex:
    """The index of one node.

    Guarantee: a dataset that shares any record with an older one is tied to it, whatever its name.

    Args:
        path: the database.
        key: the node's secret, from `node_key`.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise LedgerError(f"Expected a key of {KEY_BYTES} bytes for the record index, got {len(key)}.")
        self._path, self._key = path, key
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)

    def enter(self, dataset: str, texts: Iterable[str]) -> set[str]:
        """Add a dataset's records, durably; returns the other datasets that share any of them, now or ever.

        An empty text is nobody's record and ties nothing.
        """
        hashes = {self._hash(text) for text in texts if text.strip()}
        try:
            with closing(sqlite3.connect(self._path)) as database, database:
                database.execute("PRAGMA synchronous = FULL")
                database.execute(SCHEMA)
                rows = ((found, dataset) for found in hashes)
                database.executemany("INSERT OR IGNORE INTO records VALUES (?, ?)", rows)
                return self._sharing(database, dataset)
        except sqlite3.Error as error:
            raise LedgerError(f"Expected to read and write the record index {self._path}, got: {error}.") from error

    @staticmethod
    def _sharing(database: sqlite3.Connection, dataset: str) -> set[str]:
        query = """
        SELECT DISTINCT other.dataset FROM records AS own JOIN records AS other ON other.hash = own.hash
        WHERE own.dataset = ? AND other.dataset <> ?
        """
        return {str(name) for (name,) in database.execute(query, (dataset, dataset))}

    def _hash(self, text: str) -> bytes:
        same = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        encoded = same.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(encoded, key=self._key, digest_size=HASH_BYTES, person=b"fedvault-record").digest()


def node_key(path: Path) -> bytes:
    """This node's secret, made at first use, readable by its owner alone.

    Raises:
        LedgerError: the file is there and is not a key; a new one would forget every record.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f".{path.name}.new")
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise LedgerError(f"Expected a key of {KEY_BYTES} bytes in {path}, got {len(key)}.", hint="Restore it.")
    return key
