"""The bytes of every message of one round with fixed keys, masks and polynomials: what nodes and servers agree on.

They change only with `encoding.PROTOCOL` or `encoding.VERSION`; then print `digests()` and put it here.
"""

import hashlib
from functools import partial
from itertools import count

import numpy as np
import pytest

from shared.secure_sum.context import RoundContext
from shared.secure_sum.encoding import Kind, head
from shared.secure_sum.entries import Entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.node import Member
from shared.secure_sum.roster import Numbers, Roster
from shared.secure_sum.session import Session
from shared.secure_sum.shares import split
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Node

GOLDEN = {
    "masked-1": "c22c031fcf99bb75",
    "masked-2": "f510f26915a3663b",
    "masked-3": "f25605c5d0c1f3ba",
    "opening-1": "bf1defb21b255bfb",
    "opening-2": "48f6a5c75aef9d5e",
    "opening-3": "5cc1d6008d97eefd",
    "question": "b18e26925e89e650",
    "roster": "dbb71e47f9d3cbc3",
    "signature-1": "5fc490aafe033795",
    "signature-2": "3c39ae4391749328",
    "signature-3": "865f41c2dfc5a336",
    "survivors": "c6c5ce61bfd02d47",
}


def digests(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Digests of a round among three nodes, by what is hashed."""
    numbers = count(1)
    monkeypatch.setattr("shared.secure_sum.node.fresh", lambda: bytes([next(numbers)]) * 32)
    monkeypatch.setattr("shared.secure_sum.node.split", partial(split, below=lambda most: next(numbers) ** 60 % most))
    keys = {name: RunKeys.from_bytes(head(Kind.RUN_KEYS) + name.encode() * 64) for name in "abc"}
    entries = [Entry(name, b"key of " + name.encode(), keys[name].public, b"signed") for name in keys]
    roster = Roster.of("run-1", "5" * 64, Numbers("shared", Thresholds(3, 3, 1), (("grid", 2.0**-20),)), entries)
    context = RoundContext("run-1", "5" * 64, 3, "a" * 64, roster.sha256)
    session, nodes = Session(roster, context, 3), {name: Node(Member(name, keys[name], roster)) for name in keys}
    for name, node in nodes.items():
        session.add_masked(name, node.vector(context, np.array([ord(name), -1, 2**62])))
    session.fix()
    for name, node in nodes.items():
        session.add_signature(name, node.sign(context, session.survivors_question()))
    question = session.opening_question("a")
    for name, node in nodes.items():
        session.add_opening(name, node.open(context, session.opening_question(name)))
    records = {**session.records, "roster": roster.to_bytes(), "question": question}
    session.open()
    assert session.total is not None
    assert session.total.tolist() == [ord("a") + ord("b") + ord("c"), -3, 3 * 2**62 - 2**64]
    return {key: hashlib.sha256(record).hexdigest()[:16] for key, record in sorted(records.items())}


def test_every_message_has_the_bytes_it_always_had(monkeypatch: pytest.MonkeyPatch) -> None:
    assert digests(monkeypatch) == GOLDEN
