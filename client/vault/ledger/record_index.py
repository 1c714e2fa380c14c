"""The record index: which records belong to which dataset, as keyed hashes. Identity is the data's, not a name's.

A dataset that is renamed, edited or registered anew shares records with what was there before, and so its budget. The
key is this node's secret and the hashes never leave: with them alone nobody learns a record, not even by guessing.

Two texts are the same here after Unicode normalisation, in any case and spacing. Which texts a record is known by,
`records.identity` says. Near-duplicates are not found.

Records are entered in batches, and every batch extends a chain of digests. The ledger keeps where the chain stood, so
an index that is gone, older or changed is found; one that is ahead, as after a crash, only ties more.
"""

import hashlib
import os
import sqlite3
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from client.vault.ledger.rows import IndexDigest
from shared.errors import LedgerError
from shared.files import write_private_once

KEY_BYTES = 32
HASH_BYTES = 16
EMPTY = "0" * 64
PATIENCE_S = 60.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    hash BLOB NOT NULL, dataset TEXT NOT NULL, batch INTEGER NOT NULL, PRIMARY KEY (hash, dataset)
) STRICT, WITHOUT ROWID
"""
RESTORE = "Restore it from a backup: without it nobody can tell which records have spent what."


class Sharing(NamedTuple):
    """The datasets that share records with one, and where the index stands."""

    others: set[str]
    """Datasets that share any of its records, now or ever."""
    sought: set[str]
    """Datasets that hold any of the identities that were only looked for."""
    index_digest: IndexDigest
    """Where the index stands with them."""


class RecordIndex:
    """The index of one node.

    Guarantee: a dataset that shares any record with an older one is tied to it, whatever its name.
    Guarantee: an index or a key that is gone, older or another one than the ledger knows is never used, nor made anew.

    Args:
        path: the database.
        key: the node's secret, from `node_key`.
        index_digest: where the index stood, by the ledger; None if nothing was ever entered.

    Raises:
        LedgerError: it should be there and is not.
    """

    def __init__(self, path: Path, key: bytes, index_digest: IndexDigest | None = None) -> None:
        if len(key) != KEY_BYTES:
            raise LedgerError(f"Expected a key of {KEY_BYTES} bytes for the record index, got {len(key)}.")
        if index_digest is not None and not path.exists():
            raise LedgerError(f"Expected the record index {path}, got nothing.", hint=RESTORE)
        self._path, self._key, self._index_digest = path, key, index_digest
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)

    def hashed(self, texts: Iterable[str]) -> list[bytes]:
        """The texts' identities, one each; an empty text is nobody's, and its identity is empty."""
        return [self._hash(text) if text.strip() else b"" for text in texts]

    @contextmanager
    def entering(self, dataset: str, identities: Iterable[bytes], *, sought: Iterable[bytes] = ()) -> Iterator[Sharing]:
        """Add a dataset's records, durably when the block ends, and not at all if it fails.

        Args:
            dataset: whose records these are.
            identities: of the records.
            sought: further identities, which are looked for and not added.

        Raises:
            LedgerError: the index is not the one that the ledger knows, or cannot be written.
        """
        with self._open() as database:
            yield self._add(database, dataset, identities, sought)
            database.execute("COMMIT")

    def look(self, dataset: str, identities: Iterable[bytes], *, sought: Iterable[bytes] = ()) -> Sharing:
        """Return what entering these records would say; nothing is kept.

        Raises:
            LedgerError: the index is not the one that the ledger knows, or cannot be written.
        """
        with self._open() as database:
            sharing = self._add(database, dataset, identities, sought)
            database.execute("ROLLBACK")
        return sharing._replace(index_digest=self._index_digest or sharing.index_digest)

    def known(self, dataset: str) -> set[bytes]:
        """Return the identities of everything that was ever entered for a dataset."""
        with self._open() as database:
            self._checked_digest(database)
            return {digest for (digest,) in database.execute("SELECT hash FROM records WHERE dataset = ?", (dataset,))}

    def _add(
        self, database: sqlite3.Connection, dataset: str, identities: Iterable[bytes], sought: Iterable[bytes]
    ) -> Sharing:
        """Begin a transaction that adds a batch of records."""
        database.execute("BEGIN IMMEDIATE")
        (last,) = database.execute("SELECT coalesce(max(batch), 0) FROM records").fetchone()
        rows = ((identity, dataset, last + 1) for identity in identities if identity)
        database.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", rows)
        database.execute("CREATE TEMP TABLE sought (hash BLOB NOT NULL)")
        database.executemany("INSERT INTO sought VALUES (?)", ((identity,) for identity in sought if identity))
        return Sharing(self._sharing(database, dataset), self._holding(database), self._checked_digest(database))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE_S)) as database:
                database.execute("PRAGMA synchronous = FULL")
                database.execute(SCHEMA)
                yield database
        except sqlite3.Error as error:
            raise LedgerError(f"Expected to read and write the record index {self._path}, got: {error}.") from error

    def _checked_digest(self, database: sqlite3.Connection) -> IndexDigest:
        """Return how far the chain of batches reaches, if it is the one that the ledger knows."""
        chain, known = _chain(database), self._index_digest
        if known is not None and (known.batches >= len(chain) or chain[known.batches] != known.digest):
            raise LedgerError(
                f"Expected the record index {self._path} as the ledger knows it, got an older or another one.",
                hint=RESTORE,
            )
        return IndexDigest(key_digest(self._key), len(chain) - 1, chain[-1])

    @staticmethod
    def _sharing(database: sqlite3.Connection, dataset: str) -> set[str]:
        query = """
        SELECT DISTINCT other.dataset FROM records AS own JOIN records AS other ON other.hash = own.hash
        WHERE own.dataset = ? AND other.dataset <> ?
        """
        return {str(name) for (name,) in database.execute(query, (dataset, dataset))}

    @staticmethod
    def _holding(database: sqlite3.Connection) -> set[str]:
        query = "SELECT DISTINCT records.dataset FROM temp.sought JOIN records ON records.hash = sought.hash"
        return {str(name) for (name,) in database.execute(query)}

    def _hash(self, text: str) -> bytes:
        encoded = normalised(text).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(encoded, key=self._key, digest_size=HASH_BYTES, person=b"fedvault-record").digest()


def normalised(text: str) -> str:
    """Return a text in the form in which texts are compared: Unicode's NFKC, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def node_key(path: Path, *, known: str | None = None) -> bytes:
    """This node's secret, made at first use, readable by its owner alone.

    Args:
        path: of the key.
        known: its digest, by the ledger; then it is never made.

    Raises:
        LedgerError: the file is not a key, or not the known one; a new one would forget every record.
    """
    if not path.exists():
        if known is not None:
            raise LedgerError(f"Expected the key of the record index in {path}, got nothing.", hint=RESTORE)
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise LedgerError(f"Expected a key of {KEY_BYTES} bytes in {path}, got {len(key)}.", hint=RESTORE)
    if known is not None and key_digest(key) != known:
        raise LedgerError(f"Expected the key that this ledger knows in {path}, got another one.", hint=RESTORE)
    return key


def key_digest(key: bytes) -> str:
    """Return what the ledger keeps of the key."""
    return hashlib.sha256(b"fedvault-record-key\n" + key).hexdigest()


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private_once(path, os.urandom(KEY_BYTES))


def _chain(database: sqlite3.Connection) -> list[str]:
    """The digest after every batch, beginning with none."""
    parts: defaultdict[int, Any] = defaultdict(hashlib.sha256)
    for digest, dataset, batch in database.execute("SELECT hash, dataset, batch FROM records ORDER BY hash, dataset"):
        name = dataset.encode()
        parts[batch].update(len(name).to_bytes(4, "big") + name + digest)
    chain = [EMPTY]
    for batch in range(1, max(parts, default=0) + 1):
        chain.append(hashlib.sha256(chain[-1].encode() + parts[batch].digest()).hexdigest())
    return chain
