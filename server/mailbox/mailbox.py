"""Questions of a run to its nodes, and their replies, each in whole or not at all.

| what happens | what becomes of a message |
|---|---|
| a node fetches a question and dies before it is safe there | it is handed out again, a few times |
| a node sends half a reply | nobody sees it; the node sends the rest, or all of it, again |
| a node sends two replies to one question | the first that is here in whole counts |
| the gateway, the run's process or both are killed | everything that was acknowledged is here |
| a question expires, or its run is over | it is dropped with its reply, and an answer to it is not wanted any more |
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.mailbox.database import Database

MOST_HANDED = 3
"""How often a question is handed to a node that does not say that it is safe there."""


class NotWantedError(Exception):
    """Nobody waits for an answer to this question, now or later."""


@dataclass(frozen=True)
class KeptQuestion:
    """A message of Flower's to a node."""

    message_id: str
    run_id: int
    node_id: int
    expires: float
    """Seconds since 1970."""
    message: bytes
    """Flower's protobuf, without content."""
    tree: bytes
    """Flower's tree of the ids of its objects, as protobuf."""
    objects: tuple[str, ...]


@dataclass(frozen=True)
class KeptReply:
    """A reply that is here in whole."""

    question: str
    message: bytes
    """Flower's protobuf, without content."""
    sizes: Mapping[str, int]
    """Bytes of each of its objects, by id."""


class Mailbox:
    """Keeps the messages between a run's process and its nodes, which the gateway hands over.

    Guarantee: a reply that was acknowledged survives whatever process is killed, until its run has read it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def begin(self, run_id: int) -> None:
        """Drop everything that is of no use to this run: it is the one that is driven."""
        with suppress(FileNotFoundError):
            try:
                self.end(keep=run_id)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._database.start_afresh()

    def end(self, *, keep: int | None = None) -> None:
        """Drop the questions of every run but one, with their replies."""
        with self._database.transaction() as rows:
            rows.execute("DELETE FROM question WHERE run != ?", (str(keep),))
            _drop_unused(rows)

    def ask(self, questions: Sequence[KeptQuestion], contents: Mapping[str, bytes], *, now: float) -> None:
        """Keep questions for their nodes, all or none; an object that several share is kept once."""
        with self._database.transaction() as rows:
            rows.execute("DELETE FROM question WHERE expires <= ?", (now,))
            _drop_unused(rows)
            rows.executemany("INSERT OR IGNORE INTO object VALUES (?, ?)", contents.items())
            rows.executemany(
                "INSERT OR IGNORE INTO question (id, run, node, expires, message, tree) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (one.message_id, str(one.run_id), str(one.node_id), one.expires, one.message, one.tree)
                    for one in questions
                ],
            )
            rows.executemany(
                "INSERT OR IGNORE INTO question_object VALUES (?, ?)",
                [(one.message_id, name) for one in questions for name in one.objects],
            )

    def open_questions(self, run_id: int, *, now: float) -> dict[str, int]:
        """Return the questions of a run that have not expired, with the node of each."""
        with self._database.reading() as rows:
            questions = rows.execute("SELECT id, node FROM question WHERE run = ? AND expires > ?", (str(run_id), now))
            return {question: int(node) for question, node in questions}

    def replies(self, run_id: int) -> list[KeptReply]:
        """Return what has come in whole, oldest question first; contents are not read."""
        with self._database.reading() as rows:
            arrived = rows.execute(
                "SELECT reply.question, reply.message FROM reply JOIN question ON question.id = reply.question "
                "WHERE whole AND run = ? ORDER BY number",
                (str(run_id),),
            ).fetchall()
            sizes = "SELECT id, length(content) FROM part WHERE question = ?"
            return [
                KeptReply(question, message, dict(rows.execute(sizes, (question,)))) for question, message in arrived
            ]

    def contents(self, question: str) -> dict[str, bytes]:
        """Return the objects of a reply."""
        with self._database.reading() as rows:
            return dict(rows.execute("SELECT id, content FROM part WHERE question = ?", (question,)))

    def drop(self, questions: Iterable[str]) -> None:
        """Forget questions that are done with, and their replies."""
        with self._database.transaction() as rows:
            rows.executemany("DELETE FROM question WHERE id = ?", [(question,) for question in questions])

    def hand_out(self, node_id: int, *, now: float) -> tuple[bytes, bytes] | None:
        """Return the message and the tree of a question for this node; None if there is none.

        One that was handed out before comes after all others, and no more than `MOST_HANDED` times.
        """
        with self._database.transaction() as rows:
            next_one: tuple[int, bytes, bytes] | None = rows.execute(
                "SELECT number, message, tree FROM question "
                "WHERE node = ? AND waits AND expires > ? AND handed < ? ORDER BY handed, number LIMIT 1",
                (str(node_id), now, MOST_HANDED),
            ).fetchone()
            if next_one is None:
                return None
            rows.execute("UPDATE question SET handed = handed + 1 WHERE number = ?", (next_one[0],))
            return next_one[1], next_one[2]

    def question_object(self, object_id: str) -> bytes | None:
        """Return an object of a question."""
        with self._database.reading() as rows:
            row = rows.execute("SELECT content FROM object WHERE id = ?", (object_id,)).fetchone()
            return None if row is None else bytes(row[0])

    def confirm(self, node_id: int, question: str) -> None:
        """Hand a question out no more: it is safe at its node."""
        with self._database.transaction() as rows:
            rows.execute("UPDATE question SET waits = 0 WHERE id = ? AND node = ?", (question, str(node_id)))

    def announce(
        self, node_id: int, question: str, reply_id: str, message: bytes, objects: Sequence[str], *, now: float
    ) -> list[str]:
        """Take note of a reply; returns the ids of its objects that are still to come.

        Raises:
            NotWantedError: nobody waits for it.
        """
        with self._database.transaction() as rows:
            _require_open(rows, node_id, question, now)
            before = rows.execute("SELECT id, whole FROM reply WHERE question = ?", (question,)).fetchone()
            if before is not None and before[1]:
                return []
            if before is None or before[0] != reply_id:
                rows.execute("DELETE FROM reply WHERE question = ?", (question,))
                rows.execute("INSERT INTO reply VALUES (?, ?, ?, 0)", (question, reply_id, message))
                rows.executemany("INSERT INTO part VALUES (?, ?, NULL)", [(question, name) for name in objects])
            missing = rows.execute("SELECT id FROM part WHERE question = ? AND content IS NULL", (question,)).fetchall()
            return [name for (name,) in missing]

    def put(self, node_id: int, question: str, object_id: str, content: bytes, *, now: float) -> bool:
        """Keep an object of a reply that was announced; False if it is none of it.

        Raises:
            NotWantedError: nobody waits for it any more.
        """
        with self._database.transaction() as rows:
            _require_open(rows, node_id, question, now)
            here = rows.execute(
                "SELECT content IS NOT NULL FROM part WHERE question = ? AND id = ?", (question, object_id)
            ).fetchone()
            if here is not None and not here[0]:
                rows.execute(
                    "UPDATE part SET content = ? WHERE question = ? AND id = ?", (content, question, object_id)
                )
                _close_if_whole(rows, question)
            return here is not None


def _require_open(rows: sqlite3.Connection, node_id: int, question: str, now: float) -> None:
    asked = rows.execute(
        "SELECT 1 FROM question WHERE id = ? AND node = ? AND expires > ?", (question, str(node_id), now)
    ).fetchone()
    if asked is None:
        raise NotWantedError


def _close_if_whole(rows: sqlite3.Connection, question: str) -> None:
    """Show a reply to its run once all of it is here; the question is not handed out again."""
    changed = rows.execute(
        "UPDATE reply SET whole = 1 WHERE question = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM part WHERE question = ?1 AND content IS NULL)",
        (question,),
    ).rowcount
    if changed:
        rows.execute("UPDATE question SET waits = 0 WHERE id = ?", (question,))


def _drop_unused(rows: sqlite3.Connection) -> None:
    rows.execute("DELETE FROM object WHERE NOT EXISTS (SELECT 1 FROM question_object WHERE object = object.id)")
