"""The ledger's file: an SQLite database of chained rows, its versions, and how an older one is brought up to date.

The version is of the tables alone. What a row says stays as it was written, for ever: its hash is over those very
bytes, and every later row stands on it. A migration therefore touches no row, and `LedgerState` reads rows of every
age.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.errors import LedgerError

GENESIS = "0" * 64
SEE_A_PERSON = "Training stops until a person has looked: fedvault-node ledger --verify"
ROWS_IN_ORDER = """
CREATE TRIGGER rows_in_order BEFORE INSERT ON rows WHEN NEW.height <> (SELECT coalesce(max(height), 0) + 1 FROM rows)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
SCHEMA = f"""
CREATE TABLE rows (height INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL UNIQUE) STRICT;
CREATE TRIGGER rows_stay BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER rows_last BEFORE DELETE ON rows BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
{ROWS_IN_ORDER}
"""
SCHEMA_VERSION = 5
SALT_BYTES = 16  # the server is told hashes of rows, and must not find out by trying what they hold
MIGRATIONS = {1: ROWS_IN_ORDER, 2: "", 3: "", 4: ""}
"""Statements that lead from a version to the next. 1: `INSERT OR REPLACE` went past the other two triggers. 2: rows may
be of the kind `reject`, which an older version would take for damage; it refuses the version instead. 3: rows may be of
the kinds `roster` and `survivors`. 4: an approval may name evaluations whose noise is shared."""


@dataclass(frozen=True)
class StoredRow:
    """A row as the file holds it, whatever it says."""

    height: int
    body: str
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """Return a plain form for an export."""
        fields = parsed(self.body)
        return {"height": self.height, "hash": self.hash, **({"body": self.body} if fields is None else fields)}


def parsed(body: str) -> dict[str, Any] | None:
    """Return what a row says; None if it is no JSON object."""
    try:
        fields = json.loads(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def stored_rows(database: sqlite3.Connection) -> Iterator[StoredRow]:
    """Read every row of a ledger in order, whatever it says."""
    with closing(database.cursor()) as cursor:
        for height, body, digest in cursor.execute("SELECT height, body, hash FROM rows ORDER BY height"):
            yield StoredRow(int(height), str(body), str(digest))


def unbroken(rows: list[StoredRow]) -> list[StoredRow]:
    """Return the first rows, as far as each follows the one before by height and hash."""
    head = GENESIS
    for count, row in enumerate(rows):
        if row.height != count + 1 or chained(head, row.body) != row.hash:
            return rows[:count]
        head = row.hash
    return rows


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file of a ledger, readable by its owner alone."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    path.chmod(0o600)
    return database


def prepare(database: sqlite3.Connection, path: Path) -> int:
    """Make a database durable, and its tables if it has none; returns the version it was found in.

    Raises:
        LedgerError: a newer FedVault wrote it.
    """
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        return SCHEMA_VERSION
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"Expected a ledger of version {SCHEMA_VERSION} or older, got version {version} in {path}.",
            hint="A newer FedVault wrote it. Update this one.",
        )
    return version


def migrate(database: sqlite3.Connection, version: int) -> None:
    """Bring the tables of a verified ledger up to date, as a whole or not at all.

    Guarantee: a ledger of every older version opens with the same rows, head and spending.
    """
    if version < SCHEMA_VERSION:
        statements = "".join(MIGRATIONS[step] for step in range(version, SCHEMA_VERSION))
        database.executescript(f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def body_of(row: Mapping[str, Any], moment: datetime) -> str:
    """A row as it is written: with its time, and a salt so that its hash says nothing about it."""
    entered = {**row, "time": moment.isoformat(timespec="seconds"), "salt": secrets.token_hex(SALT_BYTES)}
    return json.dumps(entered, sort_keys=True, separators=(",", ":"))


def chained(head: str, body: str) -> str:
    """Hash of a row that follows the row with hash `head`."""
    return hashlib.sha256(f"{head}\n{body}".encode()).hexdigest()


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn whatever SQLite and the disk raise into one error."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"Expected to read and write the ledger {path}, got: {error}.", hint=SEE_A_PERSON) from error
