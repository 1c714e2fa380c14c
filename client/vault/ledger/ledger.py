"""The node's ledger: what its records have spent, durable before it is spent.

SQLite, append-only, every row chained to the one before by SHA-256. The cost of a round is reserved and on disk before
its first noisy step; what was released is on disk before the commit row, and is sent again for ever. A reservation
without released bytes stays charged and is never tried again.

| what happens | what the ledger does |
|---|---|
| a crash after the reservation | the round stays charged and is lost |
| a crash after the bytes are durable | the commit row is written on the next question, the same bytes are sent |
| a row was changed, or rows are missing in the middle | nothing opens until a person decides |
| an older copy was restored | the second copy of height and head, or the server's echo, is ahead: nothing opens |
| two processes | the second one does not open |
| the clock was set back | nothing is entered: rows keep the order in which things happened |
| the disk is full | the reservation fails, and with it the round, before any training |
"""

import fcntl
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Self

from client.vault.ledger.state import UNDECLARED, DatasetTerms, LedgerState, Limit, records, registration
from client.vault.ledger.storage import GENESIS, SEE_A_PERSON, body_of, chained, migrate, prepare, speaking
from shared.errors import FedVaultError, LedgerError
from shared.files import sync_folder, write_atomically
from shared.privacy.releases import Release, to_dict

CLOCK_SKEW = timedelta(minutes=10)
LOCK_POLL_S = 0.02


class Ledger:
    """One node's ledger, held by one process.

    Guarantee: what a dataset has spent is on disk before the first noisy step that spends it.
    Guarantee: every round of a run is trained at most once; a crash in between leaves it charged and lost.
    Guarantee: a changed, missing or rolled-back row is found before anything is trained.

    Args:
        path: the database; a new one is made if neither it nor its second copy exists.
        second: where height and head hash are kept again; on another disk, if there is one.
        patience_s: how long to wait for another process to let go of it.
        now: the clock; every row bears its time.

    Raises:
        LedgerError: it is damaged, rolled back, held by another process, or unreadable.
    """

    def __init__(
        self,
        path: Path,
        *,
        second_copy: Path,
        patience_s: float = 0.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path, self._second_copy, self._whole, self._now = path, second_copy, True, now
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        second_copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock_of(path.with_name(f"{path.name}.lock"), patience_s=patience_s)
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
        self._lock.close()

    def enter(self, row: dict[str, Any]) -> None:
        """Add a row that the books allow, durably."""
        self._append(row)

    def register(
        self,
        dataset: str,
        *,
        epsilon: float,
        delta: float,
        terms: DatasetTerms = UNDECLARED,
        ties: Iterable[str] = (),
    ) -> None:
        """Set the most a dataset may ever spend, and what it is measured in; once."""
        self._append(records(dataset, ties, None) | registration(dataset, Limit(epsilon, delta), terms))

    def tie(self, dataset: str, others: Iterable[str]) -> None:
        """Make one account of datasets that share records; one row, whomever it is tied to."""
        self._append(records(dataset, others, None))

    def approve(self, dataset: str, run: str, *, study_sha256: str, rounds: int, per_round: Release) -> None:
        """Earmark a whole run.

        Raises:
            BudgetError: its worst case does not fit beside everything spent and earmarked.
        """
        self.state.check_fits(dataset, rounds=rounds, per_round=per_round)
        row = {"dataset": dataset, "run": run, "study_sha256": study_sha256, "rounds": rounds}
        self._append({"kind": "approve", **row, "per_round": to_dict(per_round)})

    def reserve(self, run: str, number: int) -> None:
        """Charge a round, durably, before anything of it is computed.

        Raises:
            BudgetError: the records' account has no room for it, whatever was approved before.
            PolicyRefusal: the run is not approved, is over, or this round had its attempt.
        """
        self.state.check_round(run)
        self._append({"kind": "reserve", "run": run, "round": number})

    def commit(self, run: str, number: int, released: bytes) -> None:
        """Make released bytes durable, then say so in the ledger; only then may they leave."""
        outbox = self._outbox(run, number)
        if not outbox.parent.exists():
            outbox.parent.mkdir(mode=0o700)
            sync_folder(outbox.parent.parent)
        write_atomically(outbox, released)
        self._commit_row(run, number, released)

    def answer(self, run: str, number: int) -> bytes | None:
        """What was released for this round, if anything was; entered now if a crash came between bytes and row.

        Raises:
            LedgerError: the kept bytes are not the ones in the ledger.
        """
        approved = self.state.runs.get(run)
        if approved is None or number not in approved.attempts:
            return None
        outbox, entered = self._outbox(run, number), approved.attempts[number]
        if not outbox.exists():
            return None
        released = outbox.read_bytes()
        if entered is None:
            self._commit_row(run, number, released)
        elif hashlib.sha256(released).hexdigest() != entered:
            raise LedgerError(f"Expected the released bytes of round {number} of {run!r}, got others.")
        return released

    def lost(self, run: str, number: int) -> bool:
        """Whether a round was charged and nothing was released."""
        approved = self.state.runs.get(run)
        return approved is not None and number in approved.attempts and self.answer(run, number) is None

    def close_run(self, run: str) -> None:
        """Give back what a run earmarked and did not use."""
        self._append({"kind": "close", "run": run})

    def withdraw(self, dataset: str) -> None:
        """A tombstone: nothing is trained on this dataset any more."""
        self._append({"kind": "withdraw", "dataset": dataset})

    def check_server_copy(self, height: int, head: str) -> None:
        """Compare with what the server last saw of this node.

        Raises:
            LedgerError: the ledger is behind, or its history is another one.
        """
        if (height, head) in self.state.accepted:
            return
        if height > self.height or self._hash_at(height) != head:
            # a person who is to decide has to see it
            write_atomically(server_copy_of(self.path), json.dumps({"height": height, "head": head}).encode())
            raise LedgerError(
                f"Expected row {height} as the server saw it, got another history of {self.height} rows.",
                hint=SEE_A_PERSON,
            )
        server_copy_of(self.path).unlink(missing_ok=True)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row with its height and hash, oldest first."""
        for height, body, found in self._database.execute("SELECT height, body, hash FROM rows ORDER BY height"):
            yield {"height": height, "hash": found, **json.loads(body)}

    def _open(self) -> None:
        new = not self.path.exists()
        if new and self._second_copy.exists():
            raise LedgerError(f"Expected the ledger {self.path}, its second copy is alone.", hint=SEE_A_PERSON)
        self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.path.chmod(0o600)
        try:
            with speaking(self.path):
                version = prepare(self._database, self.path)
            self.height, self.head, self.state = self._verified()
            with speaking(self.path):
                migrate(self._database, version)
        except BaseException:
            self._database.close()
            raise
        self._check_second_copy(new=new)

    def _verified(self) -> tuple[int, str, LedgerState]:
        height, head, state = 0, GENESIS, LedgerState()
        self._last: datetime | None = None
        with speaking(self.path), closing(self._database.cursor()) as cursor:
            for number, body, found in cursor.execute("SELECT height, body, hash FROM rows ORDER BY height"):
                if number != height + 1 or chained(head, body) != found:
                    raise LedgerError(
                        f"Expected an unbroken ledger in {self.path}, row {height + 1} is not what it was.",
                        hint=SEE_A_PERSON,
                    )
                _enter(state, number, body)
                height, head = number, found
                self._last = datetime.fromisoformat(json.loads(body)["time"])
        return height, head, state

    def _check_second_copy(self, *, new: bool) -> None:
        if new or (self.height == 0 and not self._second_copy.exists()):
            self._write_second_copy(self.height, self.head)
            return
        try:
            kept = json.loads(self._second_copy.read_text())
            height, head = int(kept["height"]), str(kept["head"])
        except (OSError, ValueError, KeyError, TypeError):
            raise LedgerError(
                f"Expected the ledger's second copy at {self._second_copy}, got none that can be read.",
                hint=SEE_A_PERSON,
            ) from None
        # one row ahead is a crash between the row and its second copy; anything else is another history
        if not height <= self.height <= height + 1 or self._hash_at(height) != head:
            raise LedgerError(
                f"Expected row {height} or one more, as its second copy says, got {self.height} rows or others.",
                hint=f"An older copy was restored, or rows were changed. {SEE_A_PERSON}",
            )
        self._write_second_copy(self.height, self.head)

    def _append(self, row: dict[str, Any]) -> None:
        if not self._whole:
            raise LedgerError(f"Expected {self.path} to be written so far, an earlier write failed. Start again.")
        moment = self._moment()
        self.state.apply(row)
        body = body_of(row, moment)
        head = chained(self.head, body)
        # memory and disk differ until both copies are durable; a failure in between is final for this process
        self._whole = False
        with speaking(self.path):
            self._database.execute("INSERT INTO rows VALUES (?, ?, ?)", (self.height + 1, body, head))
            self._write_second_copy(self.height + 1, head)
        self.height, self.head, self._whole, self._last = self.height + 1, head, True, moment

    def _moment(self) -> datetime:
        moment = self._now()
        if self._last is not None and moment < self._last - CLOCK_SKEW:
            raise LedgerError(
                f"Expected a clock at or after the ledger's last row, {self._last:%Y-%m-%d %H:%M} UTC, "
                f"got {moment:%Y-%m-%d %H:%M}.",
                hint="The clock was set back. Set it right, then ask again.",
            )
        return moment

    def _commit_row(self, run: str, number: int, released: bytes) -> None:
        digest = hashlib.sha256(released).hexdigest()
        self._append({"kind": "commit", "run": run, "round": number, "released_sha256": digest})

    def _write_second_copy(self, height: int, head: str) -> None:
        write_atomically(self._second_copy, json.dumps({"height": height, "head": head}).encode())

    def _hash_at(self, height: int) -> str | None:
        if height == 0:
            return GENESIS
        found = self._database.execute("SELECT hash FROM rows WHERE height = ?", (height,)).fetchone()
        return None if found is None else str(found[0])

    def _outbox(self, run: str, number: int) -> Path:
        name = hashlib.sha256(f"{run}\0{number}".encode()).hexdigest()
        return self.path.with_name("outbox") / name


def lock_of(path: Path, *, patience_s: float = 0.0) -> TextIOWrapper:
    """Be the only process with this file until it is closed.

    Raises:
        LedgerError: another process is, and stays so.
    """
    file, give_up = path.open("w"), time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= give_up:
                file.close()
                raise LedgerError(f"Expected to be the only process with {path}, another one holds it.") from None
            time.sleep(LOCK_POLL_S)
        else:
            return file


def server_copy_of(path: Path) -> Path:
    """Where the server's word is kept that the ledger at `path` refused."""
    return path.with_name("echo.json")


def _enter(state: LedgerState, height: int, body: str) -> None:
    try:
        state.apply(json.loads(body))
    except (FedVaultError, ValueError, KeyError, TypeError):
        message = f"Expected a ledger that keeps its own rules, row {height} breaks one."
        raise LedgerError(message, hint=SEE_A_PERSON) from None
