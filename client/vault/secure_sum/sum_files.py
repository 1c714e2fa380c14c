"""Keep a node's keys of each secure run on disk, the roster that it took, and the shares of its own masks.

Whoever has them can take this node's part, so the folder is this user's alone and in no backup, and a run's files are
deleted when the run is over. The ledger has rows of the roster and of each set of survivors: what is missing here then
is found out, and never made anew.
"""

import hashlib
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.errors import LedgerError
from shared.files import private_folder, sync_folder, write_private
from shared.secure_sum.context import Purpose
from shared.secure_sum.encoding import Kind, head
from shared.secure_sum.entries import Entry
from shared.secure_sum.keys import RAW_KEY_BYTES, RunKeys
from shared.secure_sum.node import MaskedRow
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Roster

log = logging.getLogger(__name__)
KEYS, ROSTER = "keys", "roster"
KEYS_BYTES = len(head(Kind.RUN_KEYS)) + 2 * RAW_KEY_BYTES
UNSIGNED = b""


@dataclass(frozen=True)
class Identity:
    """This node in one run."""

    keys: RunKeys
    entry: Entry
    """Its line in the roster, without the signature of its certificate's key, which is not here."""


class SumFiles:
    """The private folder of secure sums, with a folder for each run.

    Guarantee: a run's keys are made once, and stay, also where they cannot be read.

    Args:
        folder: beside the ledger.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def any(self) -> bool:
        """True if something is kept of some run."""
        return any(self._folder.glob("*"))

    def holds(self, run: str) -> bool:
        """Return true if anything is kept of a run."""
        return self._of(run).exists()

    def last_change(self, run: str) -> float:
        """Return when a file of a run was last written, in seconds since 1970; 0 if there is none."""
        latest = 0.0
        for path in self._of(run).glob("*"):
            with suppress(FileNotFoundError):  # renamed or deleted meanwhile
                latest = max(latest, path.stat().st_mtime)
        return latest

    def make(self, run: str, name: str, certificate_key: bytes) -> Identity | None:
        """Make a run's keys for a node of this name and certificate key, unless there are some; returns what is there.

        Raises:
            SecureSumError: the name or the key is too long for a roster.
        """
        if self._read(run, KEYS) is not None:
            return self.identity(run)
        keys = RunKeys.generate()
        identity = Identity(keys, Entry(name, certificate_key, keys.public, UNSIGNED))
        written = keys.to_bytes() + identity.entry.to_bytes()
        _identity(written)
        self._write(run, KEYS, written)
        return identity

    def identity(self, run: str) -> Identity | None:
        """Return this node in a run; None if its keys are not there, or cannot be read."""
        written = self._read(run, KEYS)
        try:
            return None if written is None else _identity(written)
        except SecureSumError:
            log.error("The keys of %s cannot be read: this node takes no further part in its secure sum.", run)
            return None

    def keep_roster(self, roster: Roster) -> None:
        """Make a roster durable, before the ledger has its row."""
        self._write(roster.run, ROSTER, roster.to_bytes())

    def roster(self, run: str) -> Roster | None:
        """Return the roster that is kept; None if it is not there, or cannot be read."""
        written = self._read(run, ROSTER)
        try:
            return None if written is None else Roster.from_bytes(written)
        except SecureSumError:
            return None

    def keep_part(self, row: MaskedRow) -> None:
        """Make durable what a round's two questions need beside the message, which the outbox keeps.

        Raises:
            LedgerError: there is one of this round: it had a mask.
        """
        name = _part(row.round, row.purpose)
        if self._read(row.run, name) is not None:
            raise LedgerError(f"Expected one mask for round {row.round} of {row.run!r}, got a second.")
        self._write(row.run, name, row.to_bytes())

    def part(self, run: str, number: int, purpose: Purpose) -> MaskedRow | None:
        """Return what was kept of a round; None if nothing was, or it cannot be read."""
        written = self._read(run, _part(number, purpose))
        try:
            return None if written is None else MaskedRow.from_bytes(written)
        except SecureSumError:
            return None

    def forget(self, run: str) -> None:
        """Delete everything of a run."""
        if self.holds(run):
            shutil.rmtree(self._of(run))
            sync_folder(self._folder)

    def _write(self, run: str, name: str, content: bytes) -> None:
        folder = self._of(run)
        if not folder.exists():
            private_folder(self._folder)
            private_folder(folder)
            sync_folder(self._folder.parent)
            sync_folder(self._folder)
        write_private(folder / name, content)

    def _read(self, run: str, name: str) -> bytes | None:
        try:
            return (self._of(run) / name).read_bytes()
        except FileNotFoundError:
            return None

    def _of(self, run: str) -> Path:
        # a run's name comes from the server and may not become a path
        return self._folder / hashlib.sha256(run.encode()).hexdigest()[:32]


def _identity(written: bytes) -> Identity:
    return Identity(RunKeys.from_bytes(written[:KEYS_BYTES]), Entry.from_bytes(written[KEYS_BYTES:]))


def _part(number: int, purpose: Purpose) -> str:
    return f"{purpose}-{number}"
