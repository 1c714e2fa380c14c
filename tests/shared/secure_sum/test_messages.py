"""Bytes of anybody's either read or raise this room's error; what was written reads back."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from shared.errors import PeerError
from shared.secure_sum.encoding import MAGIC, VERSION, Kind, Reader
from shared.secure_sum.entries import Entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.messages import (
    MaskedVector,
    OpeningQuestion,
    OpeningReply,
    SurvivorsQuestion,
    SurvivorsReply,
    masked_bytes,
)
from shared.secure_sum.node import MaskedRow
from shared.secure_sum.refusals import SENTENCES, Refusal, SecureSumError
from shared.secure_sum.roster import Roster
from shared.secure_sum.session import Session
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Sum, refused

READ: dict[Kind, Callable[[bytes], object]] = {
    Kind.RUN_KEYS: RunKeys.from_bytes,
    Kind.ENTRY: Entry.from_bytes,
    Kind.ROSTER: Roster.from_bytes,
    Kind.MASKED: MaskedVector.from_bytes,
    Kind.SURVIVORS_QUESTION: SurvivorsQuestion.from_bytes,
    Kind.SURVIVORS_REPLY: SurvivorsReply.from_bytes,
    Kind.OPENING_QUESTION: OpeningQuestion.from_bytes,
    Kind.OPENING_REPLY: OpeningReply.from_bytes,
    Kind.MASKED_ROW: MaskedRow.from_bytes,
}


@cache
def honest() -> tuple[Sum, dict[Kind, bytes]]:
    """One message of each kind, from a round that is about to open."""
    run = Sum(Thresholds.by_default(4))
    run.send(run.names[:3])
    masked = run.session.records["masked-1"]
    run.session.fix()
    run.sign()
    question = run.session.opening_question(run.names[0])
    run.answer()
    row = run.nodes[run.names[0]].masked
    assert row is not None
    member = run.nodes[run.names[0]].member
    return run, {
        Kind.RUN_KEYS: member.keys.to_bytes(),
        Kind.ENTRY: run.roster.entries[0].to_bytes(),
        Kind.ROSTER: run.roster.to_bytes(),
        Kind.MASKED: masked,
        Kind.SURVIVORS_QUESTION: run.session.survivors_question(),
        Kind.SURVIVORS_REPLY: run.session.records["signature-1"],
        Kind.OPENING_QUESTION: question,
        Kind.OPENING_REPLY: run.session.records["opening-1"],
        Kind.MASKED_ROW: row.to_bytes(),
    }


@some.composite
def spoilt(draw: some.DrawFn, message: bytes) -> bytes:
    """An honest message with some bytes changed, cut, or put in."""
    changed = bytearray(message)
    for _ in range(draw(some.integers(1, 4))):
        place = draw(some.integers(0, min(len(changed), 400)))
        match draw(some.sampled_from(["set", "cut", "insert", "drop"])):
            case "set" if place < len(changed):
                changed[place] = draw(some.integers(0, 255))
            case "cut":
                del changed[place:]
            case "insert":
                changed[place:place] = draw(some.binary(max_size=8))
            case "drop":
                del changed[place : place + draw(some.integers(1, 8))]
    return bytes(changed)


@pytest.mark.guarantee("bytes from the other side raise `SecureSumError` and nothing else.")
@pytest.mark.parametrize("kind", READ)
def test_spoilt_messages_read_or_raise_the_rooms_error(kind: Kind) -> None:
    message = honest()[1][kind]

    @settings(max_examples=60)
    @given(some.one_of(spoilt(message), some.binary(max_size=60), some.binary(max_size=60).map(message[:6].__add__)))
    def reads(encoded: bytes) -> None:
        with suppress(SecureSumError):
            READ[kind](encoded)

    reads()


@pytest.mark.parametrize("kind", READ)
def test_what_was_written_reads_back(kind: Kind) -> None:
    message = honest()[1][kind]
    value = READ[kind](message)
    assert value.to_bytes() == message  # type: ignore[attr-defined]
    for cut in (message[:-1], message + b"\0", b"", message[:5]):
        refused(Refusal.MALFORMED, lambda: READ[kind](cut))  # noqa: B023 - called at once
    newer = MAGIC + bytes((VERSION + 1,)) + message[5:]
    refused(Refusal.VERSION, lambda: READ[kind](newer))
    refused(Refusal.MALFORMED, lambda: READ[kind](message[:5] + bytes((99,)) + message[6:]))


@settings(max_examples=60)
@given(some.data())
def test_spoilt_questions_reach_no_further_than_a_refusal_at_a_node(data: some.DataObject) -> None:
    run, messages = honest()
    node = run.nodes[run.names[0]]
    question = data.draw(spoilt(messages[Kind.OPENING_QUESTION]))
    survivors = data.draw(spoilt(messages[Kind.SURVIVORS_QUESTION]))
    for ask in (lambda: node.open(run.context(), question), lambda: node.sign(run.context(), survivors)):
        with suppress(SecureSumError):
            ask()


@settings(max_examples=60)
@given(some.data())
def test_spoilt_replies_reach_no_further_than_a_refusal_at_the_server(data: some.DataObject) -> None:
    run, messages = honest()
    name = run.names[0]
    records = run.session.records
    session = Session.resume(run.roster, run.session.context, run.length, records)
    fresh = Session(run.roster, run.session.context, run.length)
    reply, masked = data.draw(spoilt(messages[Kind.OPENING_REPLY])), data.draw(spoilt(messages[Kind.MASKED]))
    signature = data.draw(spoilt(messages[Kind.SURVIVORS_REPLY]))
    for add in (
        lambda: session.add_opening(name, reply),
        lambda: session.add_signature(name, signature),
        lambda: fresh.add_masked(name, masked),
    ):
        with suppress(SecureSumError):
            add()


@settings(max_examples=60)
@given(some.data())
def test_spoilt_records_resume_or_are_refused(data: some.DataObject) -> None:
    run, _ = honest()
    records = dict(run.session.records)
    key = data.draw(some.sampled_from(sorted(records)))
    records[key] = data.draw(spoilt(records[key]))
    with suppress(SecureSumError):
        Session.resume(run.roster, run.session.context, run.length, records)


def test_the_size_of_a_masked_vector_is_known_before() -> None:
    for numbers, length in ((Thresholds(3, 3, 1), 0), (Thresholds.by_default(4), 5)):
        run = Sum(numbers, length=length)
        run.send()
        assert {len(run.session.records["masked-2"])} == {masked_bytes(run.names[1], numbers.nodes, length)}


def test_names_twice_or_out_of_order_are_no_set() -> None:
    _, messages = honest()
    question = SurvivorsQuestion.from_bytes(messages[Kind.SURVIVORS_QUESTION])
    digests = dict(reversed(question.survivors.digests.items()))
    backwards = SurvivorsQuestion(question.context, type(question.survivors)(digests)).to_bytes()
    refused(Refusal.MALFORMED, lambda: SurvivorsQuestion.from_bytes(backwards))


def test_a_reader_believes_no_length() -> None:
    head = MAGIC + bytes((VERSION, Kind.ENTRY))
    refused(Refusal.MALFORMED, lambda: Reader(head + b"\xff" * 4, Kind.ENTRY, most_bytes=100).field(2**40))
    refused(Refusal.MALFORMED, lambda: Reader(head + b"\0\0\0\5hello", Kind.ENTRY, most_bytes=100).field(4))
    refused(Refusal.MALFORMED, lambda: Reader(head + bytes(100), Kind.ENTRY, most_bytes=100))


def test_every_code_has_a_sentence_and_the_error_is_the_other_sides() -> None:
    assert SENTENCES.keys() == set(Refusal)
    assert issubclass(SecureSumError, PeerError)
    error = SecureSumError(Refusal.SHARE, "node-1")
    rebuilt = error.__reduce__()
    assert isinstance(rebuilt, tuple)
    assert str(rebuilt[0](*rebuilt[1])) == str(error)  # type: ignore[operator]
