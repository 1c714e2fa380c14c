"""The mailbox's file: SQLite, written ahead, shared by processes that may be killed at any moment.

What is committed survives a process that is killed. It may not survive a machine that loses power: then every process
starts again, a run asks its round again, and nodes send the same bytes.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.run_store.database import create_sqlite_file

BUSY_S = 5.0
"""How long a transaction waits for another process's."""
PRAGMAS = ("synchronous = NORMAL", "foreign_keys = ON", f"journal_size_limit = {64 * 2**20}")
SCHEMA = """
CREATE TABLE IF NOT EXISTS question (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL, node TEXT NOT NULL,
    expires REAL NOT NULL, message BLOB NOT NULL, tree BLOB NOT NULL,
    handed INTEGER NOT NULL DEFAULT 0, waits INTEGER NOT NULL DEFAULT 1);
CREATE INDEX IF NOT EXISTS question_of_node ON question (node) WHERE waits;
CREATE TABLE IF NOT EXISTS object (id TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS question_object (
    question TEXT NOT NULL REFERENCES question (id) ON DELETE CASCADE, object TEXT NOT NULL,
    PRIMARY KEY (question, object)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS question_of_object ON question_object (object);
CREATE TABLE IF NOT EXISTS reply (
    question TEXT PRIMARY KEY REFERENCES question (id) ON DELETE CASCADE,
    id TEXT NOT NULL, message BLOB NOT NULL, whole INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS part (
    question TEXT NOT NULL REFERENCES reply (question) ON DELETE CASCADE, id TEXT NOT NULL, content BLOB,
    PRIMARY KEY (question, id));
"""


class Database:
    """A connection, made anew where the file is another one than before.

    Args:
        path: of the file; it is made if there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        self._open: tuple[int, sqlite3.Connection] | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change the file in this block, all of it or nothing; no other process changes it meanwhile."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read in this block, one thread at a time."""
        with self._lock:
            try:
                yield self._connection()
            except sqlite3.OperationalError:  # locked, full: the file itself is whole
                raise
            except sqlite3.DatabaseError:
                self.close()
                raise

    def start_afresh(self) -> None:
        """Remove the file, whatever is in it: what it held is asked and answered again."""
        with self._lock:
            self.close()
            for end in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None

    def _connection(self) -> sqlite3.Connection:
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if self._open is not None and self._open[0] == inode:
            return self._open[1]
        self.close()
        create_sqlite_file(self._path)
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            connection.executescript(SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._open = self._path.stat().st_ino, connection
        return connection
