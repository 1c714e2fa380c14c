"""The server's part of one secure sum, as a state machine without IO.

    OPEN ──fix──▶ FIXED ──open──▶ OPENED
      │             │ └───open, a dealer cheated──▶ LOST
      └──give_up────┴──give_up──▶ LOST

OPEN    Nodes are asked for their vector, as often as it takes: they send the same bytes. Late ones still count.
FIXED   The set U is fixed and written down before the first node is asked to sign it. A vector that comes now is
        acknowledged and never used. First U signs: t signatures are needed. Then U opens: any t of it if nobody is
        missing from the roster; all of U otherwise, for a pair mask with a missing node is known to the survivor alone.
OPENED  The sum is written down; masked vectors and shares are dropped.
LOST    Nothing was opened, and nothing will be: no other U may be made of these vectors. Ask for a new round.

Only OPEN may be asked again. Fix U after a question whether all of it are alive, and give FIXED a long deadline: a
restarted node answers the same bytes.

Each method that changes something returns the `Record` to write down before the next message leaves. `resume` makes the
session again from those records, in any state.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Self

import numpy as np

from shared.secure_sum.context import RoundContext
from shared.secure_sum.encoding import Kind, Reader, head, joined, malformed
from shared.secure_sum.masks import VALUE_BYTES, Masked, Vector, add_pair_masks, committed, own_seed, stream
from shared.secure_sum.messages import (
    MOST_MASKED,
    Dealt,
    Held,
    MaskedVector,
    OpeningQuestion,
    OpeningReply,
    SurvivorsQuestion,
    SurvivorsReply,
)
from shared.secure_sum.node import share_digest
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.roster import Roster
from shared.secure_sum.shares import combine, weights
from shared.secure_sum.survivors import Survivors

MOST_FAULTS_BYTES = 2**24


class State(StrEnum):
    """Where a secure round stands."""

    OPEN = "open"
    FIXED = "fixed"
    OPENED = "opened"
    LOST = "lost"


class Record(NamedTuple):
    """Something to write down: a key that may be a file's name, and its content."""

    key: str
    content: bytes


class Fault(NamedTuple):
    """Who broke a rule in an opening. For a box, it is the dealer or the holder, and nobody can tell which."""

    code: Refusal
    dealer: str = ""
    holder: str = ""


class Session:
    """One round's secure sum, from the first masked vector to the opened sum."""

    def __init__(self, roster: Roster, context: RoundContext, length: int) -> None:
        self.roster, self.context, self.length = roster, context, length
        self.state = State.OPEN
        self.survivors: Survivors | None = None
        self.total: Vector | None = None
        """The sum, once opened: signed, modulo 2^64."""
        self.faults: list[Fault] = []
        self._records: dict[str, bytes] = {}
        self._dealt: dict[str, tuple[bytes, tuple[Dealt, ...]]] = {}
        self._signatures: dict[str, bytes] = {}
        self._openings: dict[str, OpeningReply] = {}

    @classmethod
    def resume(cls, roster: Roster, context: RoundContext, length: int, records: Mapping[str, bytes]) -> Self:
        """Make a session again from what its methods gave to be written down.

        Guarantee: a server that was killed in any state goes on with the same set and the same sum.

        Raises:
            SecureSumError: these are the records of another session.
        """
        session = cls(roster, context, length)
        if "total" in records or "lost" in records:
            session._end(dict(records))
            return session
        for name in session._named(records, "masked"):
            session.add_masked(name, records[session._key("masked", name)])
        if "survivors" in records:
            session._fix(SurvivorsQuestion.from_bytes(records["survivors"]).survivors)
        for name in session._named(records, "signature"):
            session.add_signature(name, records[session._key("signature", name)])
        for name in session._named(records, "opening"):
            session.add_opening(name, records[session._key("opening", name)])
        return session

    @property
    def records(self) -> Mapping[str, bytes]:
        """All that must be on disk now. Once the round is opened or lost, it holds no vector and no share."""
        return dict(self._records)

    @property
    def threshold(self) -> int:
        """How many must send, sign and open."""
        return self.roster.numbers.thresholds.threshold

    @property
    def arrived(self) -> tuple[str, ...]:
        """Names whose vector counts, or may count."""
        return tuple(name for name in self.roster.names if name in self._dealt)

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Survivors that have not signed."""
        return tuple(name for name in self._fixed.names if name not in self._signatures)

    @property
    def unopened(self) -> tuple[str, ...]:
        """Survivors that have not sent their part of the opening."""
        return tuple(name for name in self._fixed.names if name not in self._openings)

    @property
    def missing(self) -> tuple[str, ...]:
        """Nodes of the roster that are not in the set."""
        return tuple(name for name in self.roster.names if name not in self._fixed.digests)

    @property
    def is_signed(self) -> bool:
        """True once t survivors have signed."""
        return len(self._signatures) >= self.threshold

    @property
    def can_open(self) -> bool:
        """True once there are t shares of each survivor's own mask, and each pair key with the missing."""
        if self.state is not State.FIXED or (self.missing and self.unopened):
            return False
        return all(len(self._shares(dealer)) >= self.threshold for dealer in self._fixed.names)

    def add_masked(self, name: str, message: bytes) -> Record | None:
        """Take a node's vector; returns nothing to write for one that is there already, or came late.

        Raises:
            SecureSumError: it is no vector of this round, or the node sent another one before.
        """
        key = self._key("masked", name)
        if self.state is not State.OPEN or self._records.get(key) == message:
            return None
        masked = MaskedVector.from_bytes(message)
        self._check_sender(name, masked.name, masked.context)
        if len(masked.values) != self.length or len(masked.dealt) != len(self.roster.names):
            raise SecureSumError(Refusal.MALFORMED, f"Expected {self.length} values.")
        record = self._add(key, message)
        self._dealt[name] = masked.commitment, masked.dealt
        return record

    def fix(self, names: Iterable[str] | None = None) -> Record:
        """Fix the set: all that arrived, or those of them that are named. Nothing that comes later counts.

        Guarantee: a vector that arrives after the set is fixed is never used.

        Raises:
            SecureSumError: they are fewer than the threshold, one has not arrived, or a set is fixed already.
        """
        self._expect(State.OPEN)
        chosen = self.arrived if names is None else tuple(names)
        self._fix(self._arrived_of(chosen))
        return Record("survivors", self._records["survivors"])

    def survivors_question(self) -> bytes:
        """Return the question that all survivors are asked first, in the same bytes."""
        self._expect(State.FIXED)
        return self._records["survivors"]

    def add_signature(self, name: str, message: bytes) -> Record | None:
        """Take a survivor's signature; returns nothing to write for one that is there already.

        Raises:
            SecureSumError: it is no signature of a survivor on this set.
        """
        self._expect(State.FIXED)
        reply = SurvivorsReply.from_bytes(message)
        self._check_sender(name, reply.name, reply.context, among=self._fixed.names)
        if name in self._signatures:
            return None
        if not self._fixed.is_signed(reply.signature, self.roster.entry(name).keys.signing, self.context):
            raise SecureSumError(Refusal.SIGNATURE, name)
        record = self._add(self._key("signature", name), message)
        self._signatures[name] = reply.signature
        return record

    def opening_question(self, name: str) -> bytes:
        """Return the question to one survivor for its part of the opening.

        Raises:
            SecureSumError: fewer than t have signed, or it is no survivor.
        """
        self._expect(State.FIXED)
        if name not in self._fixed.digests:
            raise SecureSumError(Refusal.STRANGER)
        if not self.is_signed:
            raise SecureSumError(Refusal.SIGNATURES_TOO_FEW)
        place = self.roster.positions[name] - 1
        held = (Held(self._dealt[dealer][0], *self._dealt[dealer][1][place]) for dealer in self._fixed.names)
        return OpeningQuestion(self.context.digest, self._fixed, self._signatures, tuple(held)).to_bytes()

    def add_opening(self, name: str, message: bytes) -> Record | None:
        """Take a survivor's part of the opening; shares that lie are left out and their holder is among the faults.

        Guarantee: a share that does not hash to what its dealer announced names its holder.

        Raises:
            SecureSumError: it is no reply of a survivor to this opening, or it sent another one before.
        """
        self._expect(State.FIXED)
        if self._records.get(self._key("opening", name)) == message:
            return None
        reply = OpeningReply.from_bytes(message)
        self._check_sender(name, reply.name, reply.context, among=self._fixed.names)
        if (len(reply.shares), len(reply.seeds)) != (len(self._fixed.names), len(self.missing)):
            raise SecureSumError(Refusal.MALFORMED, name)
        record = self._add(self._key("opening", name), message)
        self._openings[name] = reply
        for dealer, share in zip(self._fixed.names, reply.shares, strict=True):
            if not self._is_announced(dealer, name, share):
                self.faults.append(Fault(Refusal.BOX if share is None else Refusal.SHARE, dealer, name))
        return record

    def open(self) -> Record:
        """Take all masks from the sum, which is `total` then; or lose the round to a dealer that is among the faults.

        Guarantee: the opened vector is the exact sum of the survivors' vectors, modulo 2^64.

        Guarantee: shares that hash but do not give the committed mask name their dealer.

        Raises:
            SecureSumError: parts of the opening are missing.
        """
        self._expect(State.FIXED)
        if not self.can_open:
            raise SecureSumError(Refusal.STATE, "Parts of the opening are missing.")
        masks = self._own_masks()
        if len(masks) < len(self._fixed.names):
            return self.give_up()
        total = self._masked_total()
        for name, own in masks.items():
            total -= stream(own_seed(own, self.context, name), self.length)
            if self.missing:
                add_pair_masks(total, name, dict(zip(self.missing, self._openings[name].seeds, strict=True)), times=-1)
        return self._end_with("total", total.astype("<u8", copy=False).tobytes())

    def give_up(self) -> Record:
        """Lose the round: it was asked for too long, or a dealer cheated."""
        if self.state not in (State.OPEN, State.FIXED):
            raise SecureSumError(Refusal.STATE, f"It is {self.state}.")
        return self._end_with("lost", b"")

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise SecureSumError(Refusal.STATE, f"It is {self.state}.")

    @property
    def _fixed(self) -> Survivors:
        if self.survivors is None:
            raise SecureSumError(Refusal.STATE, f"It is {self.state}.")
        return self.survivors

    def _fix(self, survivors: Survivors) -> None:
        survivors.check(self.roster)
        if survivors != self._arrived_of(survivors.names):
            raise SecureSumError(Refusal.STRANGER)
        for name in set(self.arrived) - {*survivors.names}:
            del self._dealt[name], self._records[self._key("masked", name)]
        self._records["survivors"] = SurvivorsQuestion(self.context.digest, survivors).to_bytes()
        self.survivors, self.state = survivors, State.FIXED

    def _arrived_of(self, names: Iterable[str]) -> Survivors:
        """Return the set of some nodes whose vectors are here."""
        messages = {name: self._records.get(self._key("masked", name)) for name in names}
        if None in messages.values():
            raise SecureSumError(Refusal.STRANGER)
        return Survivors.of({name: hashlib.sha256(message or b"").digest() for name, message in messages.items()})

    def _masked_total(self) -> Masked:
        """Return the sum of the survivors' masked vectors."""
        total: Masked = np.zeros(self.length, np.uint64)
        for name in self._fixed.names:
            total += MaskedVector.from_bytes(self._records[self._key("masked", name)]).values
        return total

    def _own_masks(self) -> dict[str, bytes]:
        """Reconstruct survivors' own masks; one whose shares miss its commitment is a fault, and left out."""
        masks, factors = {}, {}
        for dealer in self._fixed.names:
            shares = self._shares(dealer)
            places = tuple(sorted(shares))[: self.threshold]
            if places not in factors:
                factors[places] = weights(places)
            try:
                own = combine(shares, factors[places])
            except SecureSumError:
                own = b""
            if committed(own, self.context, dealer) == self._dealt[dealer][0]:
                masks[dealer] = own
            else:
                self.faults.append(Fault(Refusal.COMMITMENT, dealer))
        return masks

    def _shares(self, dealer: str) -> dict[int, bytes]:
        """Return the announced shares of a survivor's own mask, by their holders' places."""
        index = self._fixed.names.index(dealer)
        shares = {self.roster.positions[name]: reply.shares[index] for name, reply in self._openings.items()}
        lying = {
            self.roster.positions[fault.holder] for fault in self.faults if fault.dealer == dealer and fault.holder
        }
        return {place: share for place, share in shares.items() if share is not None and place not in lying}

    def _is_announced(self, dealer: str, holder: str, share: bytes | None) -> bool:
        announced = self._dealt[dealer][1][self.roster.positions[holder] - 1].share_digest
        return share is not None and share_digest(share, self.context, dealer, holder) == announced

    def _check_sender(self, name: str, written: str, context: bytes, *, among: Iterable[str] | None = None) -> None:
        if name not in (self.roster.positions if among is None else among) or written != name:
            raise SecureSumError(Refusal.STRANGER)
        if context != self.context.digest:
            raise SecureSumError(Refusal.OTHER_CONTEXT, name)

    def _add(self, key: str, content: bytes) -> Record:
        if key in self._records:
            raise SecureSumError(Refusal.ANSWERED_TWICE)
        self._records[key] = content
        return Record(key, content)

    def _key(self, kind: str, name: str) -> str:
        if name not in self.roster.positions:
            raise SecureSumError(Refusal.STRANGER)
        return f"{kind}-{self.roster.positions[name]}"

    def _named(self, records: Mapping[str, bytes], kind: str) -> list[str]:
        return [name for name in self.roster.names if self._key(kind, name) in records]

    def _end_with(self, key: str, content: bytes) -> Record:
        faults = json.dumps([list(fault) for fault in self.faults]).encode()
        record = Record(key, head(Kind.SESSION) + joined(faults, content))
        self._end({**self._records, key: record.content})
        return record

    def _end(self, records: Mapping[str, bytes]) -> None:
        """Take the state that a last record says, and drop all vectors and shares."""
        if "survivors" in records:
            self.survivors = SurvivorsQuestion.from_bytes(records["survivors"]).survivors
        key, self.state = ("total", State.OPENED) if "total" in records else ("lost", State.LOST)
        reader = Reader(records[key], Kind.SESSION, most_bytes=MOST_MASKED)
        self.faults = _faults(reader.field(MOST_FAULTS_BYTES))
        content = reader.field(MOST_MASKED)
        reader.end()
        if key == "total":
            if len(content) != VALUE_BYTES * self.length:
                raise malformed(f"a sum of {self.length} values")
            self.total = np.frombuffer(content, "<i8").astype(np.int64, copy=False)
        self._records = {name: records[name] for name in ("survivors", key) if name in records}
        self._dealt, self._signatures, self._openings = {}, {}, {}


def _faults(encoded: bytes) -> list[Fault]:
    try:
        return [Fault(Refusal(code), dealer, holder) for code, dealer, holder in json.loads(encoded)]
    except (ValueError, TypeError, RecursionError):
        raise malformed("faults") from None
