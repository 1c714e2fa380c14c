"""Who is named when a share lies, and what a colluder can and cannot spoil."""

from dataclasses import replace

import numpy as np
import pytest

from shared.secure_sum.boxes import Address, seal
from shared.secure_sum.messages import Dealt, MaskedVector, OpeningReply, SurvivorsReply
from shared.secure_sum.node import share_digest
from shared.secure_sum.refusals import Refusal
from shared.secure_sum.session import Fault, Session, State
from shared.secure_sum.shares import PRIME, SHARE_BYTES
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Sum, refused

FIVE = Thresholds.by_default(5)


def fixed(run: Sum) -> Sum:
    run.session.fix()
    run.sign()
    return run


def answer_with(run: Sum, name: str, change: dict[int, bytes | None]) -> None:
    """Let one node answer with other shares for some survivors."""
    reply = OpeningReply.from_bytes(run.nodes[name].open(run.session.context, run.session.opening_question(name)))
    shares = tuple(change.get(index, share) for index, share in enumerate(reply.shares))
    run.session.add_opening(name, replace(reply, shares=shares).to_bytes())


@pytest.mark.guarantee("a share that does not hash to what its dealer announced names its holder.")
def test_a_share_that_lies_names_its_holder_and_the_others_open_the_sum() -> None:
    run = Sum(FIVE)
    run.send()
    liar, dealer = run.names[2], run.names[0]
    answer_with(fixed(run), liar, {0: bytes(SHARE_BYTES)})
    assert run.session.faults == [Fault(Refusal.SHARE, dealer, liar)]
    run.answer()
    record = run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names))
    resumed = Session.resume(run.roster, run.session.context, run.length, dict([record]))
    assert resumed.faults == [Fault(Refusal.SHARE, dealer, liar)]


def test_the_fault_is_seen_again_after_a_restart() -> None:
    run = Sum(FIVE)
    run.send()
    answer_with(fixed(run), run.names[2], {0: bytes(SHARE_BYTES)})
    resumed = Session.resume(run.roster, run.session.context, run.length, run.session.records)
    assert resumed.faults == run.session.faults


def test_a_share_withheld_names_dealer_and_holder() -> None:
    run = Sum(FIVE)
    run.send()
    answer_with(fixed(run), run.names[2], {0: None})
    assert run.session.faults == [Fault(Refusal.BOX, run.names[0], run.names[2])]


def test_colluders_that_refuse_to_open_leave_a_sum_that_waits_and_never_a_part() -> None:
    run = Sum(FIVE)
    run.send()
    fixed(run)
    run.answer(run.names[:3])
    assert not run.session.can_open
    refused(Refusal.STATE, run.session.open)
    assert run.session.unopened == run.names[3:]
    run.answer(run.names[3:4])
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names))


def send_changed(run: Sum, dealer: str, changed: MaskedVector) -> None:
    """Let one node's message be another one, which it also takes for its own."""
    node = run.nodes[dealer]
    assert node.masked is not None
    node.masked = replace(node.masked, message=changed.to_bytes())
    run.session.add_masked(dealer, node.masked.message)


def dealt_by(run: Sum, dealer: str) -> MaskedVector:
    return MaskedVector.from_bytes(run.nodes[dealer].vector(run.session.context, run.values[dealer]))


def dealing(run: Sum, dealer: str, holder: str, share: bytes) -> MaskedVector:
    """What a dealer sends that deals one holder a share of its choice, announced as it is."""
    honest, context, place = dealt_by(run, dealer), run.session.context, run.roster.positions[holder] - 1
    address = Address(context, dealer, holder, honest.commitment)
    box = seal(share, run.nodes[dealer].member.secrets[holder], address)
    dealt = list(honest.dealt)
    dealt[place] = Dealt(share_digest(share, context, dealer, holder), box)
    return replace(honest, dealt=tuple(dealt))


@pytest.mark.guarantee("shares that hash but do not give the committed mask name their dealer.")
@pytest.mark.parametrize(
    "share",
    [bytes(SHARE_BYTES), PRIME.to_bytes(SHARE_BYTES, "big"), b"\xff" * SHARE_BYTES],
    ids=("zero", "p", "all bits"),
)
def test_shares_that_miss_the_commitment_name_their_dealer_and_lose_the_round(share: bytes) -> None:
    run = Sum(FIVE)
    dealer, holder = run.names[0], run.names[1]
    run.send(run.names[1:])
    send_changed(run, dealer, dealing(run, dealer, holder, share))
    fixed(run)
    run.answer()
    record = run.session.open()
    assert run.session.state is State.LOST
    assert run.session.faults == [Fault(Refusal.COMMITMENT, dealer)]
    assert run.session.total is None
    resumed = Session.resume(run.roster, run.session.context, run.length, dict([record]))
    assert (resumed.state, resumed.faults) == (State.LOST, run.session.faults)


def test_a_dealer_cannot_have_an_honest_holder_named_alone() -> None:
    run = Sum(FIVE)
    dealer, holder = run.names[0], run.names[1]
    run.send(run.names[1:])
    honest = dealt_by(run, dealer)
    framed = (honest.dealt[0], honest.dealt[1]._replace(share_digest=bytes(32)), *honest.dealt[2:])
    send_changed(run, dealer, replace(honest, dealt=framed))
    fixed(run)
    run.answer()
    assert run.session.faults == [Fault(Refusal.BOX, dealer, holder)]
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names))


def test_a_signature_by_another_node_is_refused() -> None:
    run = Sum(FIVE)
    run.send()
    run.session.fix()
    first, other, *_ = run.names
    message = run.nodes[first].sign(run.session.context, run.session.survivors_question())
    refused(Refusal.STRANGER, lambda: run.session.add_signature(other, message))
    forged = replace(SurvivorsReply.from_bytes(message), name=other).to_bytes()
    refused(Refusal.SIGNATURE, lambda: run.session.add_signature(other, forged))


def test_a_node_given_another_adapter_takes_no_part() -> None:
    run = Sum(FIVE)
    isolated = run.names[0]
    other = run.context(adapter_sha256="b" * 64)
    message = run.nodes[isolated].vector(other, run.values[isolated])
    refused(Refusal.OTHER_CONTEXT, lambda: run.session.add_masked(isolated, message))
    # a server that lies to itself about it opens noise: no pair mask of that node cancels
    forged = replace(MaskedVector.from_bytes(message), context=run.session.context.digest).to_bytes()
    run.send(run.names[1:])
    run.session.add_masked(isolated, forged)
    run.session.fix()
    run.sign(run.names[1:])
    run.answer(run.names[1:])
    assert {fault.dealer for fault in run.session.faults} == {isolated}
    assert not run.session.can_open
