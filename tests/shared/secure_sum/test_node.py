"""What a node refuses, whatever the server sends: each rule of the module, by its code."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.secure_sum.context import RoundContext
from shared.secure_sum.messages import Held, MaskedVector, OpeningQuestion, OpeningReply, SurvivorsQuestion
from shared.secure_sum.node import MaskedRow, mask_vector, open_sum, resend, sign_survivors
from shared.secure_sum.refusals import Refusal
from shared.secure_sum.survivors import Survivors
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Node, Sum, refused

FOUR = Thresholds.by_default(4)
OTHER_CONTEXTS: dict[str, Any] = {
    "round": {"round": 2},
    "adapter": {"adapter_sha256": "b" * 64},
    "purpose": {"purpose": "evaluation"},
    "run": {"run": "run-2"},
    "study": {"study_sha256": "6" * 64},
    "roster": {"roster_sha256": "d" * 64},
}


def sent(**changed: Any) -> Sum:
    run = Sum(FOUR, **changed)
    run.send()
    return run


def question(run: Sum, survivors: Survivors | None = None, context: RoundContext | None = None) -> bytes:
    return SurvivorsQuestion((context or run.context()).digest, survivors or everyone(run)).to_bytes()


def everyone(run: Sum, **changed: bytes) -> Survivors:
    rows = {name: node.masked for name, node in run.nodes.items()}
    digests = {name: hashlib.sha256(row.message).digest() for name, row in rows.items() if row is not None}
    return Survivors.of({**digests, **{name.replace("_", "-"): digest for name, digest in changed.items()}})


def without(survivors: Survivors, name: str) -> Survivors:
    return Survivors.of({other: digest for other, digest in survivors.digests.items() if other != name})


@pytest.mark.guarantee("one run, round and purpose has one vector and one mask.")
def test_a_second_vector_is_refused_and_the_first_is_sent_again_for_ever() -> None:
    run = sent()
    node, context = run.nodes[run.names[0]], run.context()
    assert node.masked is not None
    refused(Refusal.SECOND_VECTOR, lambda: node.vector(context, run.values[run.names[0]]))
    restored = MaskedRow.from_bytes(node.masked.to_bytes())
    assert restored == node.masked
    assert resend(context, restored) == node.masked.message


@pytest.mark.parametrize("field", ["adapter", "roster", "study"])
def test_a_round_asked_with_another_adapter_or_roster_is_not_answered_again(field: str) -> None:
    run = sent()
    masked = run.nodes[run.names[0]].masked
    assert masked is not None
    refused(Refusal.SECOND_VECTOR, lambda: resend(run.context(**OTHER_CONTEXTS[field]), masked))


@pytest.mark.parametrize("field", ["run", "study", "roster"])
def test_no_vector_is_masked_for_another_run_study_or_roster(field: str) -> None:
    run = Sum(FOUR)
    name = run.names[0]
    refused(
        Refusal.OTHER_CONTEXT, lambda: run.nodes[name].vector(run.context(**OTHER_CONTEXTS[field]), run.values[name])
    )


def test_a_row_shows_neither_its_share_nor_its_message_and_holds_no_own_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    own = b"own mask of 32 bytes, for a test"
    monkeypatch.setattr("shared.secure_sum.node.fresh", lambda: own)
    run = sent()
    masked = run.nodes[run.names[0]].masked
    assert masked is not None
    assert own not in masked.to_bytes()
    assert "share" not in repr(masked)


def test_a_vector_of_a_wrong_shape_is_refused() -> None:
    run = Sum(FOUR)
    for values in (np.zeros((2, 2), np.int64), np.zeros(5, np.float64), np.zeros(5, np.uint64)):
        refused(Refusal.MALFORMED, lambda: run.nodes[run.names[0]].vector(run.context(), values))  # noqa: B023


def test_equal_vectors_look_different_each_time() -> None:
    run, again = sent(), sent()
    first = {MaskedVector.from_bytes(node.masked.message).values[0] for node in run.nodes.values() if node.masked}
    second = {MaskedVector.from_bytes(node.masked.message).values[0] for node in again.nodes.values() if node.masked}
    assert len(first | second) == 8


@pytest.mark.guarantee("a node signs and opens no set of fewer nodes than its smallest cohort.")
def test_a_set_smaller_than_the_cohort_is_neither_signed_nor_opened() -> None:
    run = sent()
    me = run.nodes[run.names[0]]
    three, strict = without(everyone(run), run.names[1]), replace(me.member, smallest_cohort=4)
    context, asked = run.context(), question(run, three)
    refused(Refusal.SMALL_COHORT, lambda: sign_survivors(strict, context, asked, me.masked, None))
    row, _reply = sign_survivors(me.member, context, asked, me.masked, None)
    signatures = {name: three.sign(run.nodes[name].member.keys, context) for name in three.names}
    held = (Held(bytes(32), bytes(32), bytes(82)),) * len(three.names)
    opening = OpeningQuestion(context.digest, three, signatures, held).to_bytes()
    refused(Refusal.SMALL_COHORT, lambda: open_sum(strict, context, opening, me.masked, row))
    assert open_sum(me.member, context, opening, me.masked, row)


SURVIVORS: dict[str, tuple[Refusal, Callable[[Sum, str], bytes]]] = {
    "without me": (Refusal.SURVIVORS_WITHOUT_ME, lambda run, me: question(run, without(everyone(run), me))),
    "another message of mine": (
        Refusal.SURVIVORS_CHANGED_ME,
        lambda run, me: question(run, everyone(run, node_000=bytes(32))),
    ),
    "a stranger": (Refusal.SURVIVORS_STRANGER, lambda run, me: question(run, everyone(run, stranger=bytes(32)))),
    "too few": (
        Refusal.SURVIVORS_TOO_FEW,
        lambda run, me: question(run, without(without(everyone(run), run.names[1]), run.names[2])),
    ),
    "another round": (Refusal.OTHER_CONTEXT, lambda run, me: question(run, context=run.context(round=2))),
    "another purpose": (
        Refusal.OTHER_CONTEXT,
        lambda run, me: question(run, context=run.context(purpose="evaluation")),
    ),
}


@pytest.mark.parametrize("case", SURVIVORS)
def test_survivors_are_refused_by_their_reason(case: str) -> None:
    code, ask = SURVIVORS[case]
    run = sent()
    me = run.names[0]
    refused(code, lambda: run.nodes[me].sign(run.context(), ask(run, me)))
    assert run.nodes[me].signed is None


@pytest.mark.guarantee(
    "a node signs one set of survivors a run, round and purpose, and only with itself and its own message in it."
)
def test_a_second_set_is_refused_and_the_first_gets_the_same_signature() -> None:
    run = sent()
    node = run.nodes[run.names[0]]
    reply = node.sign(run.context(), question(run))
    assert node.sign(run.context(), question(run)) == reply
    refused(
        Refusal.SECOND_SURVIVORS, lambda: node.sign(run.context(), question(run, without(everyone(run), run.names[3])))
    )
    changed = everyone(run, node_003=bytes(32))
    refused(Refusal.SECOND_SURVIVORS, lambda: node.sign(run.context(), question(run, changed)))


def test_a_node_that_sent_no_vector_signs_and_opens_nothing() -> None:
    run = fixed()
    member, context = run.nodes[run.names[3]].member, run.context()
    survivors, opening = run.session.survivors_question(), run.session.opening_question(run.names[0])
    refused(Refusal.NO_VECTOR, lambda: sign_survivors(member, context, survivors, None, None))
    refused(Refusal.NO_VECTOR, lambda: open_sum(member, context, opening, None, None))


def test_rows_of_another_round_or_purpose_are_not_taken_for_this_one() -> None:
    run, later = sent(), sent(round=2)
    name = run.names[0]
    run.nodes[name].masked = later.nodes[name].masked
    refused(Refusal.OTHER_CONTEXT, lambda: run.nodes[name].sign(run.context(), question(run)))


def fixed(**changed: Any) -> Sum:
    run = sent(**changed)
    run.session.fix(run.names[:3])
    run.sign()
    return run


def asked(run: Sum, **changed: Any) -> bytes:
    return replace(OpeningQuestion.from_bytes(run.session.opening_question(run.names[0])), **changed).to_bytes()


def signatures(run: Sum) -> dict[str, bytes]:
    return dict(OpeningQuestion.from_bytes(run.session.opening_question(run.names[0])).signatures)


@pytest.mark.guarantee("a node opens only the set that it signed and that t nodes of its roster signed.")
def test_a_set_that_was_not_signed_by_this_node_and_by_t_is_not_opened() -> None:
    run = fixed()
    node, context, held = run.nodes[run.names[0]], run.context(), Held(bytes(32), bytes(32), bytes(82))
    node.open(context, asked(run))
    two = {name: signatures(run)[name] for name in run.names[:2]}
    refused(Refusal.SIGNATURES_TOO_FEW, lambda: node.open(context, asked(run, signatures=two)))
    repeated = {**two, run.names[3]: two[run.names[1]]}
    refused(Refusal.SIGNATURE, lambda: node.open(context, asked(run, signatures=repeated)))
    strange = {**two, "stranger": two[run.names[1]]}
    refused(Refusal.STRANGER, lambda: node.open(context, asked(run, signatures=strange)))
    wider = asked(run, survivors=everyone(run), held=(held,) * 4)
    refused(Refusal.SECOND_SURVIVORS, lambda: node.open(context, wider))
    unsigned = Node(node.member, node.masked)
    refused(Refusal.NOT_SIGNED, lambda: unsigned.open(context, asked(run)))


def test_signatures_of_another_round_do_not_count() -> None:
    run, earlier = fixed(), fixed(round=2)
    node = run.nodes[run.names[0]]
    other = {**signatures(earlier), run.names[0]: signatures(run)[run.names[0]]}
    refused(Refusal.SIGNATURE, lambda: node.open(run.context(), asked(run, signatures=other)))


@pytest.mark.parametrize("field", ["round", "purpose", "adapter"])
def test_an_opening_of_another_context_is_refused(field: str) -> None:
    run = fixed()
    other = run.context(**OTHER_CONTEXTS[field])
    refused(
        Refusal.OTHER_CONTEXT, lambda: run.nodes[run.names[0]].open(run.context(), asked(run, context=other.digest))
    )


@pytest.mark.guarantee("of one node, a reply holds a share of its own mask or the key of its pair mask, never both.")
def test_a_reply_has_one_thing_of_each_node_and_the_same_bytes_again() -> None:
    run = fixed()
    node = run.nodes[run.names[0]]
    reply = node.open(run.context(), asked(run))
    opened = OpeningReply.from_bytes(reply)
    assert (len(opened.shares), len(opened.seeds)) == (3, 1)
    assert all(opened.shares)
    assert node.open(run.context(), asked(run)) == reply


def test_a_box_that_was_swapped_or_replayed_is_reported_for_its_dealer_alone() -> None:
    run, other = fixed(), fixed(round=2)
    context, node = run.context(), run.nodes[run.names[0]]
    honest = OpeningQuestion.from_bytes(run.session.opening_question(run.names[0])).held
    replayed = OpeningQuestion.from_bytes(other.session.opening_question(run.names[0])).held
    at_other = OpeningQuestion.from_bytes(run.session.opening_question(run.names[2])).held
    for held in (
        (honest[0], honest[2], honest[2]),
        (honest[0], replayed[1], honest[2]),
        (honest[0], at_other[1], honest[2]),
        (honest[0], honest[1]._replace(commitment=honest[2].commitment), honest[2]),
        (honest[0], honest[1]._replace(share_digest=honest[2].share_digest), honest[2]),
    ):
        shares = OpeningReply.from_bytes(node.open(context, asked(run, held=held))).shares
        assert [share is None for share in shares] == [False, True, False]


def test_messages_of_one_kind_have_one_size_whatever_is_in_them() -> None:
    run = fixed()
    run.answer()
    sizes = {key: len(record) for key, record in run.session.records.items()}
    assert len({size for key, size in sizes.items() if key.startswith("masked")}) == 1
    assert len({size for key, size in sizes.items() if key.startswith("opening")}) == 1
    zeros = mask_vector(run.nodes[run.names[0]].member, run.context(round=9), np.zeros(5, np.int64), None)
    assert len(zeros.message) == sizes["masked-1"]
