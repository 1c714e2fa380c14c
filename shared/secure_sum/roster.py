"""Who takes part in a run, with which keys and which public numbers: one list that all nodes have, or none goes on.

The authority that certifies nodes is the server's own, so it could enrol any number of nodes that are its own. What a
node relies on is the pins of its operator, which are of public keys.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Self, get_args

from shared.secure_sum.encoding import MOST_NODES, Kind, Reader, head, joined, malformed
from shared.secure_sum.entries import MOST_ENTRY_BYTES, Entry, is_signed
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.thresholds import Thresholds

Mode = Literal["masked", "shared"]
MODES: tuple[Mode, ...] = get_args(Mode)
MOST_NUMBERS = 64
MOST_ROSTER_BYTES = MOST_NODES * (MOST_ENTRY_BYTES + 64) + MOST_NUMBERS * 300 + 4096
FLOAT = struct.Struct(">d")


class Numbers(NamedTuple):
    """What all nodes must agree on before the first vector. They follow from the study and the number of nodes."""

    mode: Mode
    thresholds: Thresholds
    noise: tuple[tuple[str, float], ...] = ()
    """Further public numbers by name, such as the noise multiplier, the grid and the sensitivity; names ascend."""


@dataclass(frozen=True)
class Roster:
    """The nodes of a run, by name, and its public numbers."""

    run: str
    study_sha256: str
    numbers: Numbers
    entries: tuple[Entry, ...]
    """By name, ascending in their UTF-8 bytes: a node's place here is its place in every sharing."""

    @classmethod
    def of(cls, run: str, study_sha256: str, numbers: Numbers, entries: Iterable[Entry]) -> Self:
        """Make the roster of some nodes, in any order."""
        return cls(run, study_sha256, numbers, tuple(sorted(entries, key=lambda entry: entry.name.encode())))

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of everything in it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Places by name, counted from 1, at which a polynomial is evaluated for them."""
        return {entry.name: place for place, entry in enumerate(self.entries, 1)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names, ascending."""
        return tuple(entry.name for entry in self.entries)

    def peers(self, name: str) -> tuple[Entry, ...]:
        """Return everybody's entry but one's own."""
        return tuple(entry for entry in self.entries if entry.name != name)

    def entry(self, name: str) -> Entry:
        """Return one node's entry.

        Raises:
            SecureSumError: it takes no part.
        """
        if name not in self.positions:
            raise SecureSumError(Refusal.STRANGER)
        return self.entries[self.positions[name] - 1]

    def to_bytes(self) -> bytes:
        """Return the roster as every side writes it."""
        (nodes, threshold, colluders), noise = _counts(self.numbers.thresholds), self.numbers.noise
        fields: list[str | int] = [
            self.run,
            self.study_sha256,
            self.numbers.mode,
            nodes,
            threshold,
            colluders,
            len(noise),
        ]
        named = [part for name, number in noise for part in (name, FLOAT.pack(number))]
        return head(Kind.ROSTER) + joined(*fields, *named, *(entry.to_bytes() for entry in self.entries))

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read a roster; whether it may be taken is `check_roster`'s question.

        Raises:
            SecureSumError: these are other bytes, or its numbers do not fit together.
        """
        reader = Reader(encoded, Kind.ROSTER, most_bytes=MOST_ROSTER_BYTES)
        run, study_sha256, mode = reader.text(), reader.text(), _mode(reader.text())
        thresholds = Thresholds(reader.number(), reader.number(), reader.number())
        count = reader.number()
        if count > MOST_NUMBERS:
            raise malformed(f"at most {MOST_NUMBERS} numbers")
        noise = tuple((reader.text(), FLOAT.unpack(reader.fixed(FLOAT.size))[0]) for _ in range(count))
        if not all(math.isfinite(number) for _, number in noise):
            raise malformed("finite numbers")
        entries = tuple(Entry.from_bytes(reader.field(MOST_ENTRY_BYTES)) for _ in range(thresholds.nodes))
        reader.end()
        return cls(run, study_sha256, Numbers(mode, thresholds, noise), entries)


def check_roster(
    roster: Roster,
    me: Entry,
    keys: RunKeys,
    expected: Numbers,
    *,
    run: str,
    study_sha256: str,
    vouched: Callable[[Entry], bool],
) -> None:
    """Refuse a roster that is not of this run, lacks this node, or in which two nodes could be one.

    Guarantee: a roster without this node, with this node changed, with a wrong signature, or with a copied key is
    refused.

    Args:
        roster: of anybody's making.
        me: this node's own entry, as it signed it.
        keys: this node's own.
        expected: the numbers that follow from the study for so many nodes.
        run: that the operator approved.
        study_sha256: of its study.
        vouched: true for an entry whose certificate key the federation's authority has certified.

    Raises:
        SecureSumError: with the reason as its code.
    """
    if (roster.run, roster.study_sha256) != (run, study_sha256):
        raise SecureSumError(Refusal.ROSTER_OTHER_RUN)
    if roster.numbers != expected or len(roster.entries) != expected.thresholds.nodes:
        raise SecureSumError(Refusal.ROSTER_OTHER_NUMBERS)
    if me.name not in roster.positions:
        raise SecureSumError(Refusal.ROSTER_WITHOUT_ME)
    if roster.entry(me.name) != me or me.keys != keys.public:
        raise SecureSumError(Refusal.ROSTER_CHANGED_ME)
    _check_distinct(roster.entries)
    for entry in roster.entries:
        if not is_signed(entry, run, study_sha256):
            raise SecureSumError(Refusal.ROSTER_SIGNATURE)
        if not vouched(entry):
            raise SecureSumError(Refusal.ROSTER_STRANGER)
    _check_secrets(roster, keys)


def _check_distinct(entries: tuple[Entry, ...]) -> None:
    names = [entry.name.encode() for entry in entries]
    if names != sorted(names) or not all(entry.name.isprintable() for entry in entries):
        raise malformed("entries by name, which can be printed")
    for kind in (
        names,
        [entry.certificate_key for entry in entries],
        [entry.keys.exchange for entry in entries],
        [entry.keys.signing for entry in entries],
    ):
        if len(set(kind)) != len(entries):
            raise SecureSumError(Refusal.ROSTER_DUPLICATE)


def _check_secrets(roster: Roster, keys: RunKeys) -> None:
    """Refuse keys that act alike: another encoding of one, or one plus a point of small order.

    X25519 multiplies by 8, so such keys give the same secret as the key that they copy. This node's own key is among
    those compared.
    """
    secrets = {keys.secret_with(entry.keys.exchange) for entry in roster.entries}
    if len(secrets) != len(roster.entries):
        raise SecureSumError(Refusal.ROSTER_KEY)


def _counts(thresholds: Thresholds) -> tuple[int, int, int]:
    return thresholds.nodes, thresholds.threshold, thresholds.colluders


def _mode(text: str) -> Mode:
    for mode in MODES:
        if text == mode:
            return mode
    raise malformed(f"one of the modes {', '.join(MODES)}")
