"""Decides who takes part in a run's secure sum: once, from the entries that nodes signed, and for good.

Rules
1. An entry counts if it bears the name and the certificate's key that the node is enrolled with, is signed for this
   run, and shares no key with an entry that counts already. Of two entries with the same keys the first one stays.
2. The roster holds every node that is present with an entry when enough have approved, or as many of them as the
   study's threshold and colluders allow. It is on the disk before a task leaves, and never changes: who comes later is
   not asked.
3. A node that can take no further part is gone for good. When fewer than the threshold are left, the run has failed.
4. A node that refuses the roster counts as gone, but its operator may pin a key: while the others make the quorum
   without it, it is asked again, after pauses that grow.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from shared.errors import DataError, SettingsError
from shared.files import write_atomically
from shared.protocol.messages import Status
from shared.secure_sum.entries import Entry, is_signed
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Numbers, Roster

log = logging.getLogger(__name__)
FOR_GOOD = frozenset({Status.REJECTED, Status.OUT_OF_SECURE_SUM})
"""Answers after which a node takes no further part in a run's secure sum."""
REVOKED, REFUSED = "revoked", Status.REFUSED_ROSTER.name.lower()
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 3600.0
"""Between two questions to a node that refuses the roster."""


class Enrolled(NamedTuple):
    """A node as it is enrolled."""

    name: str
    certificate_key: bytes
    """As DER."""


class RunRoster:
    """Keeps the roster of one run, and before it is fixed the entries that it is made from.

    Guarantee: a run's roster is on the disk before its first task leaves, and is never another one.

    Args:
        study_run: names the run.
        study_sha256: of its study.
        numbers: returns the public numbers for so many nodes.
        most: returns how many of so many able nodes a roster can hold.
        begins_with: fewest nodes that a roster can be made of.
        quorum: of the study.
        file: where the roster is kept.
        clock: seconds, for the pauses after which a node that refused the roster is asked again.
    """

    def __init__(
        self,
        study_run: str,
        study_sha256: str,
        *,
        numbers: Callable[[int], Numbers],
        most: Callable[[int], int],
        begins_with: int,
        quorum: int,
        file: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._study_sha256, self._numbers = study_run, study_sha256, numbers
        self._most, self._begins_with, self._quorum, self._file = most, begins_with, quorum, file
        self._entries, self._probe = dict[str, Entry](), RunKeys.generate()
        self._clock, self._ask_again = clock, dict[str, tuple[float, float]]()
        self.gone: dict[str, str] = {}
        """Nodes of the roster that take no further part, each with the reason."""
        self.fixed = self._read()

    @property
    def quorum(self) -> int:
        """Fewest nodes for a round, or, before the roster is fixed, for the run to begin."""
        if self.fixed is not None:
            return max(self._quorum, self.threshold)
        return self._begins_with

    @property
    def threshold(self) -> int:
        """Fewest nodes whose sum is ever opened."""
        return 0 if self.fixed is None else self.fixed.numbers.thresholds.threshold

    def take(self, node: Enrolled, encoded: bytes) -> str:
        """Keep a node's entry, unless the roster is fixed; returns why it does not count, or nothing."""
        if self.fixed is not None:
            return ""
        try:
            entry = Entry.from_bytes(encoded)
        except SecureSumError as error:
            return str(error)
        known = self._entries.get(node.name)
        if known is not None and known.keys == entry.keys:
            return ""
        reason = self._fault(node, entry)
        if not reason:
            self._entries[node.name] = entry
        return reason

    def has(self, name: str) -> bool:
        """Return true for a node that may be asked: in the roster and not gone; before it is fixed, with an entry."""
        if self.fixed is None:
            return name in self._entries
        return name in self.fixed.positions and name not in self.gone

    def fix(self, names: Iterable[str]) -> Roster:
        """Make the roster of these nodes, and write it down; the one that is there stays."""
        if self.fixed is None:
            able = sorted((name for name in names if name in self._entries), key=str.encode)
            entries = [self._entries[name] for name in able[: self._most(len(able))]]
            roster = Roster.of(self._run, self._study_sha256, self._numbers(len(entries)), entries)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, roster.to_bytes())
            self.fixed = roster
        return self.fixed

    def note_gone(self, name: str, reason: str) -> None:
        """Take note of a node that takes no further part in the run."""
        if self.fixed is not None and name in self.fixed.positions:
            self.gone.setdefault(name, reason)

    def note_refused(self, name: str) -> None:
        """Take note of a node that refuses the roster: its operator may pin a key, and then it takes part."""
        pause = min(LONGEST_PAUSE_S, 2 * self._ask_again[name][1]) if name in self._ask_again else FIRST_PAUSE_S
        self._ask_again[name] = (self._clock() + pause, pause)
        self.note_gone(name, REFUSED)

    def note_taken(self, name: str) -> None:
        """Take note of a node that has sent its part, and so has taken the roster."""
        if self.gone.get(name) == REFUSED:
            del self.gone[name], self._ask_again[name]

    def may_take_it(self, name: str) -> bool:
        """Return true for a node that refused the roster so long ago that it is asked again."""
        return self.gone.get(name) == REFUSED and self._clock() >= self._ask_again[name][0]

    def require_enough(self) -> None:
        """Return if the run can still open a sum.

        Raises:
            SettingsError: so many nodes are gone for good that fewer than the threshold are left.
        """
        if self.fixed is None or len(self.fixed.names) - len(self.gone) >= self.threshold:
            return
        gone = ", ".join(f"{name} ({reason})" for name, reason in sorted(self.gone.items()))
        raise SettingsError(
            f"Expected at least {self.threshold} of the {len(self.fixed.names)} nodes in the run's secure sum to be "
            f"left, got {len(self.fixed.names) - len(self.gone)}: {gone} take no further part.",
            hint="Queue the study again: a new run has a new roster.",
        )

    def _fault(self, node: Enrolled, entry: Entry) -> str:
        if (entry.name, entry.certificate_key) != (node.name, node.certificate_key):
            return "Expected an entry with the name and the key that the node is enrolled with, got others."
        if not is_signed(entry, self._run, self._study_sha256):
            return "Expected an entry that is signed for this run, got another signature."
        others = [other.keys for name, other in self._entries.items() if name != node.name]
        try:
            # X25519 multiplies by 8, so a copy of a key with a point of small order gives the secret of the key itself
            secrets = {self._probe.secret_with(keys.exchange) for keys in others}
            copied = self._probe.secret_with(entry.keys.exchange) in secrets
        except SecureSumError as error:
            return str(error)
        if copied or entry.keys.signing in {keys.signing for keys in others}:
            return "Expected keys of its own, got another node's."
        return ""

    def _read(self) -> Roster | None:
        try:
            encoded = self._file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            roster = Roster.from_bytes(encoded)
        except SecureSumError:
            roster = None
        if roster is None or (roster.run, roster.study_sha256) != (self._run, self._study_sha256):
            raise DataError(
                f"Expected the roster of {self._run} in {self._file}, got one that is damaged.",
                hint="Restore the file from a backup, or queue the study again: nodes take one roster a run.",
            )
        return roster
