"""Secure sums in memory: nodes with keys and rows, a server that may lie, and the names of everything."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.secure_sum.context import Purpose, RoundContext
from shared.secure_sum.entries import Entry, sign_entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.masks import Vector
from shared.secure_sum.node import MaskedRow, Member, SurvivorsRow, mask_vector, open_sum, sign_survivors
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.roster import Numbers, Roster
from shared.secure_sum.session import Session
from shared.secure_sum.thresholds import Thresholds

RUN, STUDY = "run-1", "5" * 64
LENGTH = 5


@cache
def certificate_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"node-{number:03}" for number in range(count))


def signed(name: str, keys: RunKeys, *, certificate: str = "", run: str = RUN, study: str = STUDY) -> Entry:
    return sign_entry(run, study, name, keys.public, certificate_key(certificate or name))


@cache
def members(thresholds: Thresholds) -> dict[str, Member]:
    """The members of a roster, by name; made once for each set of numbers."""
    keys = {name: RunKeys.generate() for name in names_of(thresholds.nodes)}
    roster = Roster.of(RUN, STUDY, Numbers("shared", thresholds), [signed(name, keys[name]) for name in keys])
    return {name: Member(name, keys[name], roster) for name in keys}


@dataclass
class Node:
    """A node with its rows, which it writes down before it answers."""

    member: Member
    masked: MaskedRow | None = None
    signed: SurvivorsRow | None = None

    def vector(self, context: RoundContext, values: Vector) -> bytes:
        self.masked = mask_vector(self.member, context, values, self.masked)
        return self.masked.message

    def sign(self, context: RoundContext, question: bytes) -> bytes:
        assert self.masked is not None
        self.signed, reply = sign_survivors(self.member, context, question, self.masked, self.signed)
        return reply

    def open(self, context: RoundContext, question: bytes) -> bytes:
        assert self.masked is not None
        return open_sum(self.member, context, question, self.masked, self.signed)


@dataclass
class Sum:
    """One secure sum among some nodes, with an honest server."""

    thresholds: Thresholds
    round: int = 1
    purpose: Purpose = "training"
    length: int = LENGTH
    seed: int = 0
    nodes: dict[str, Node] = field(init=False)
    values: dict[str, Vector] = field(init=False)
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = {name: Node(member) for name, member in members(self.thresholds).items()}
        random = np.random.default_rng(self.seed)
        bounds = np.iinfo(np.int64)
        self.values = {
            name: random.integers(bounds.min, bounds.max, self.length, dtype=np.int64) for name in self.nodes
        }
        self.session = Session(self.roster, self.context(), self.length)

    @property
    def roster(self) -> Roster:
        return next(iter(self.nodes.values())).member.roster

    @property
    def names(self) -> tuple[str, ...]:
        return self.roster.names

    def context(self, **changed: Any) -> RoundContext:
        fields = {"run": RUN, "study_sha256": STUDY, "round": self.round, "adapter_sha256": "a" * 64}
        return RoundContext(**{**fields, "roster_sha256": self.roster.sha256, "purpose": self.purpose, **changed})

    def send(self, names: Iterable[str] | None = None) -> None:
        for name in self.names if names is None else names:
            self.session.add_masked(name, self.nodes[name].vector(self.session.context, self.values[name]))

    def sign(self, names: Iterable[str] | None = None) -> None:
        for name in self.session.unsigned if names is None else names:
            question = self.session.survivors_question()
            self.session.add_signature(name, self.nodes[name].sign(self.session.context, question))

    def answer(self, names: Iterable[str] | None = None) -> None:
        for name in self.session.unopened if names is None else names:
            question = self.session.opening_question(name)
            self.session.add_opening(name, self.nodes[name].open(self.session.context, question))

    def opened(self, survivors: Sequence[str] | None = None) -> Vector:
        """Go all the way with some survivors, all of whom answer."""
        self.send(survivors)
        self.session.fix()
        self.sign()
        self.answer()
        self.session.open()
        assert self.session.total is not None
        return self.session.total

    def expected(self, survivors: Iterable[str]) -> Vector:
        return np.sum([self.values[name] for name in survivors], axis=0, dtype=np.int64)


def refused(code: Refusal, question: Callable[[], object]) -> SecureSumError:
    with pytest.raises(SecureSumError) as raised:
        question()
    assert raised.value.code is code
    return raised.value
