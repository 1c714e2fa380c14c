"""The node's ledger: what its records spend is written down, durably, before it is spent.

SQLite, append-only, every row chained to the one before by SHA-256. The cost of a round is reserved and on disk before
its first noisy step; what was released is on disk before the commit row, and is sent again (`outbox`). A reservation
without released bytes stays charged and is never tried again.

| what happens | what the ledger does |
|---|---|
| a crash after the reservation | the round stays charged and is lost |
| a crash after the bytes are durable | the next question writes the row and sends them; none, once the run is over |
| a row was changed, or rows are missing in the middle | nothing opens until a person decides |
| an older copy was restored | the second copy of height and head is ahead: nothing opens |
| both copies are older | the server's copy is ahead, with this node's MAC: nothing is trained until a person decides |
| the server's copy bears another MAC | the round is refused; the ledger is as good as before |
| two processes | the second one does not open |
| the clock was set back, or a row was dated ahead | nothing is entered until the clock or a person says so |
| the disk is full | the reservation fails, and with it the round, before any training |
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from client.vault.ledger.account import check_room, replayed, whole_run
from client.vault.ledger.lock import ledger_lock
from client.vault.ledger.outbox import Outbox
from client.vault.ledger.positions import (
    NOT_OURS,
    WITHOUT_PROOF,
    is_ours,
    key_of,
    read_position,
    refused_server_copy,
    server_copy_of,
    with_mac,
    write_position,
)
from client.vault.ledger.record_index import node_key
from client.vault.ledger.rows import NOTHING_DECLARED, Evaluations, Limit
from client.vault.ledger.storage import (
    GENESIS,
    SEE_A_PERSON,
    StoredRow,
    body_of,
    chained,
    ledger_errors,
    migrate,
    open_database,
    prepare,
    stored_rows,
    unbroken,
)
from shared.errors import LedgerError, SettingsError
from shared.privacy.releases import Release, to_dict
from shared.protocol.messages import NO_MAC, LedgerPosition

CLOCK_SKEW = timedelta(minutes=10)
NOBODYS: Mapping[str, str] = {}
"""Words of a decision whose row does not say who made it."""


class Ledger:
    """One node's ledger, held by one process.

    Guarantee: what a dataset has spent is on disk before the first noisy step that spends it.
    Guarantee: every round of a run is trained at most once; a crash in between leaves it charged and lost.
    Guarantee: a changed, missing or rolled-back row is found before anything is trained.
    Guarantee: a run's secure sum has one roster, and a sum one set of survivors, for ever.

    Args:
        path: the database; a new one is made if neither it nor its second copy exists.
        second_copy: where height and head hash are kept again; on another disk, if there is one.
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
        self.path, self._second_copy, self._consistent, self._now = path, second_copy, True, now
        self.outbox = Outbox(path.with_name("outbox"))
        self._last: datetime | None = None
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        second_copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = ledger_lock(path, patience_s=patience_s)
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
        """Let another process have the ledger."""
        self._database.close()
        self._lock.close()

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self._heads) - 1

    @property
    def head(self) -> str:
        """Hash of the last row."""
        return self._heads[-1]

    @property
    def position(self) -> LedgerPosition:
        """Height and head together."""
        return LedgerPosition(self.height, self.head)

    @property
    def position_with_mac(self) -> LedgerPosition:
        """The position as it is sent, so that this node knows it again.

        Raises:
            LedgerError: the node's key is gone, or another one than the ledger knows.
        """
        return with_mac(self.position, self.path, known=self.state.key_sha256)

    def enter(self, row: dict[str, Any]) -> None:
        """Add a row that the ledger's rules allow, durably.

        Raises:
            PolicyRefusal: it breaks a rule.
            LedgerError: it cannot be written, or the clock was set back.
        """
        self._append(row, self._moment())

    def _append(self, row: dict[str, Any], moment: datetime) -> None:
        if not self._consistent:
            raise LedgerError(f"Expected {self.path} to be written so far, an earlier write failed. Start again.")
        self.state.apply({**row, "time": moment.isoformat(timespec="seconds")})
        body = body_of(row, moment)
        head = chained(self.head, body)
        # memory and disk differ until both copies are durable; a failure in between is final for this process
        self._consistent = False
        with ledger_errors(self.path):
            self._database.execute("INSERT INTO rows VALUES (?, ?, ?)", (self.height + 1, body, head))
            write_position(self._second_copy, LedgerPosition(self.height + 1, head))
        self._heads.append(head)
        self._consistent, self._last = True, moment

    def approve(
        self,
        dataset: str,
        run: str,
        *,
        study_sha256: str,
        rounds: int,
        per_round: Release,
        evaluations: Evaluations | None = None,
        declared: Mapping[str, Limit] = NOTHING_DECLARED,
        words: Mapping[str, str] = NOBODYS,
    ) -> None:
        """Earmark a whole run; the first one fixes the Renyi order that its account is judged at.

        Args:
            dataset: registered.
            run: not approved before.
            study_sha256: of its study.
            rounds: of the whole run.
            per_round: what one of them releases.
            evaluations: of the run; None: it has none.
            declared: the limits of node.toml today by dataset, which may be stricter than the registered ones.
            words: who decided and why, from `decided`.

        Raises:
            BudgetError: its worst case does not fit beside everything spent and earmarked.
        """
        self.state.check_usable(dataset)
        budget = self.state.budget(dataset, declared=declared)
        total = whole_run(self.state, dataset, rounds=rounds, per_round=per_round, evaluations=evaluations)
        budget.check_fits(total, asked_for="a run")
        row: dict[str, Any] = {} if evaluations is None else evaluations.as_row
        row |= {"dataset": dataset, "run": run, "study_sha256": study_sha256, "rounds": rounds}
        row |= {"orders": list(budget.orders_with(total)), **budget.collusion_terms(per_round)}
        self.enter({"kind": "approve", **row, "per_round": to_dict(per_round), **words})

    def reject(self, run: str, words: Mapping[str, str] = NOBODYS) -> None:
        """Enter a no to a run, whatever was said to it before; it gives nothing back by itself."""
        self.enter({"kind": "reject", "run": run, **words})

    def reserve(self, run: str, number: int, *, declared: Mapping[str, Limit] = NOTHING_DECLARED) -> Release:
        """Charge a round, durably, before anything of it is computed; return the release that was charged.

        Args:
            run: approved.
            number: of the round.
            declared: the limits of node.toml today by dataset, which may be stricter than the registered ones.

        Raises:
            BudgetError: the records' account has no room for it, whatever was approved before.
            PolicyRefusal: the run is not approved, is over, or this round had its attempt.
        """
        self.check_room(run, declared=declared)
        self.enter({"kind": "reserve", "run": run, "round": number})
        return self.state.run(run).per_round

    def fail(self, run: str, number: int) -> None:
        """Say that a reserved round failed, before that is answered."""
        self.enter({"kind": "fail", "run": run, "round": number})

    def resume(self, run: str, rounds: Sequence[int], evaluations: Sequence[int] = (), **words: str) -> None:
        """Say that a person looked at some failed and lost rounds and evaluations of a run, so that it may go on.

        `words` say who it was, why, and from where.

        Raises:
            PolicyRefusal: they did not fail, and were not lost.
        """
        looked_at = {"evaluations": sorted(evaluations)} if evaluations else {}
        self.enter({"kind": "resume", "run": run, "rounds": sorted(rounds), **looked_at, **words})

    def check_room(self, run: str, *, declared: Mapping[str, Limit] = NOTHING_DECLARED) -> None:
        """Refuse a round that the account has no room for any more: see `account.check_room`."""
        check_room(self.state, run, declared=declared)

    def commit(self, run: str, number: int, released: bytes) -> None:
        """Make released bytes durable, then say so in the ledger; only then may they leave."""
        self.outbox.keep(run, number, released)
        self._enter_commit(run, number, released)
        self.prune_outbox()

    def answer(self, run: str, number: int) -> bytes | None:
        """Return what was released for this round, if anything was.

        If a crash came between the bytes and their row, the row is entered now, unless the run was ended since.
        Guarantee: bytes that no row calls released do not leave once their run is over.

        Raises:
            LedgerError: the kept bytes are not the ones in the ledger.
        """
        approved = self.state.runs.get(run)
        if approved is None or number not in approved.attempts:
            return None
        released, digest = self.outbox.find(run, number), approved.attempts[number]
        if released is None:
            return None
        if digest is None and self.state.is_over(run):
            self.outbox.forget(run, number)
            return None
        if digest is None:
            self._enter_commit(run, number, released)
        elif hashlib.sha256(released).hexdigest() != digest:
            raise LedgerError(f"Expected the released bytes of round {number} of {run!r}, got others.")
        return released

    def prune_outbox(self) -> None:
        """Delete released bytes that nobody asks for any more."""
        self.outbox.prune(self._released(), self._released(going_on=True), self._now().timestamp())

    def released_files_to_back_up(self) -> set[Path]:
        """Return the files of released bytes that a crash may have asked again.

        Of runs that may have further rounds, and of those that may be in their last: it leaves nothing earmarked.
        """
        in_use, attempts = self.outbox.newest(self._released(going_on=True)), self._released()
        return in_use | self.outbox.newest_of_this_week(attempts, self._now().timestamp())

    def _released(self, *, going_on: bool = False) -> dict[str, Mapping[int, str | None]]:
        """Return what runs have begun, by the names under which the outbox keeps it; of those that go on, if wanted."""
        over = [n for n, run in self.state.runs.items() if going_on and (self.state.is_over(n) or not run.may_go_on)]
        runs = [(name, run) for name, run in self.state.runs.items() if name not in over]
        return {key: attempts for name, run in runs for key, attempts in run.released(name).items()}

    def close_run(self, run: str) -> None:
        """Give back what a run earmarked and did not use."""
        self.enter({"kind": "close", "run": run})

    def withdraw(self, dataset: str) -> None:
        """End all training on a dataset for good."""
        self.enter({"kind": "withdraw", "dataset": dataset})

    def check_server_copy(self, position: LedgerPosition) -> None:
        """Compare with what the server last saw of this node, by its own word (see `positions`).

        Guarantee: what the server echoes without this node's MAC makes nobody continue without rows.

        Raises:
            LedgerError: rows are missing, or it cannot be told whether they are, or the echo is not this node's.
        """
        known = self.state.key_sha256
        ours = position.mac != NO_MAC and is_ours(position, self.path, known=known)
        if position.mac != NO_MAC and not ours:
            raise LedgerError(
                f"Expected the server's copy of row {position.height} with this node's own MAC, got another: the "
                "server's echo is not ours.",
                hint=NOT_OURS,
            )
        refused, proven = refused_server_copy(self.path, known=known)
        if refused is not None and proven and not self._leads_to(refused):
            # a server that takes back what this node itself has said of its rows does not bring them back
            position, ours = refused, True
        if self._leads_to(position):
            server_copy_of(self.path).unlink(missing_ok=True)
            return
        # a person who is to decide has to see it
        write_position(server_copy_of(self.path), position)
        raise LedgerError(
            f"Expected row {position.height} as the server saw it, got another history of {self.height} rows.",
            hint=SEE_A_PERSON if ours else WITHOUT_PROOF,
        )

    def accept_date(self) -> None:
        """Enter a person's word that the last row was dated by a clock that ran ahead: the clock of today counts.

        Raises:
            SettingsError: the last row is not dated ahead.
        """
        moment, last = self._now(), self._last
        if last is None or moment >= last - CLOCK_SKEW:
            raise SettingsError("Expected a ledger whose last row is dated ahead of the clock, this one's is not.")
        self._append({"kind": "date", "row": self.height, "dated": last.isoformat(timespec="seconds")}, moment)

    def _open(self) -> None:
        new = not self.path.exists()
        if new and self._second_copy.exists():
            raise LedgerError(f"Expected the ledger {self.path}, its second copy is alone.", hint=SEE_A_PERSON)
        self._database = open_database(self.path)
        try:
            with ledger_errors(self.path):
                version = prepare(self._database, self.path)
                rows = list(stored_rows(self._database))
            self._verify(rows)
            with ledger_errors(self.path):
                migrate(self._database, version)
            if new:
                node_key(key_of(self.path))  # as old as the ledger: a copy of one holds the other
            copied = None if new else self._checked_second_copy()
            if copied != self.position:
                write_position(self._second_copy, self.position)
        except BaseException:
            self._database.close()
            raise

    def _verify(self, rows: list[StoredRow]) -> None:
        """Take over what the rows add up to, if each follows from the one before and breaks no rule."""
        if (intact := len(unbroken(rows))) < len(rows):
            raise LedgerError(
                f"Expected an unbroken ledger in {self.path}, row {intact + 1} is not what it was.", hint=SEE_A_PERSON
            )
        self.state = replayed(row.body for row in rows)
        self._heads = [GENESIS, *(row.hash for row in rows)]
        self._last = datetime.fromisoformat(json.loads(rows[-1].body)["time"]) if rows else None

    def _checked_second_copy(self) -> LedgerPosition | None:
        """Return the second copy, if this ledger leads to it; None where neither has a row."""
        copied = read_position(self._second_copy)
        if copied is None and self.height == 0 and not self._second_copy.exists():
            return None
        if copied is None:
            raise LedgerError(
                f"Expected the ledger's second copy at {self._second_copy}, got none that can be read.",
                hint=SEE_A_PERSON,
            )
        # one row ahead is a crash between the row and its second copy; anything else is another history
        if not copied.height <= self.height <= copied.height + 1 or self._heads[copied.height] != copied.head:
            raise LedgerError(
                f"Expected row {copied.height} or one more, as its second copy says, got {self.height} rows or others.",
                hint=f"An older copy was restored, or rows were changed. {SEE_A_PERSON}",
            )
        return copied

    def _leads_to(self, position: LedgerPosition) -> bool:
        height, head = position.height, position.head
        known = 0 <= height <= self.height and self._heads[height] == head
        return known or (height, head) in self.state.accepted

    def _moment(self) -> datetime:
        moment = self._now()
        if self._last is not None and moment < self._last - CLOCK_SKEW:
            raise LedgerError(
                f"Expected a clock at or after the ledger's last row, {self._last:%Y-%m-%d %H:%M} UTC, "
                f"got {moment:%Y-%m-%d %H:%M}.",
                hint="If the clock was set back, set it right. If the last row was dated by a clock that ran ahead, "
                "say so: fedvault-node ledger --accept-date",
            )
        return moment

    def _enter_commit(self, run: str, number: int, released: bytes) -> None:
        digest = hashlib.sha256(released).hexdigest()
        self.enter({"kind": "commit", "run": run, "round": number, "released_sha256": digest})
