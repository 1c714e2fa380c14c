"""The server's part: exact sums, any order of arrival, every set of drop-outs, and kill -9 in every state."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from shared.secure_sum.refusals import Refusal
from shared.secure_sum.session import Session, State
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import LENGTH, Sum, refused

FOUR, FIVE, SIX = Thresholds.by_default(4), Thresholds.by_default(5), Thresholds(6, 4, 1)


def subsets(names: tuple[str, ...], fewest: int = 0) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, size) for size in range(fewest, len(names) + 1)))


@pytest.mark.guarantee("the opened vector is the exact sum of the survivors' vectors, modulo 2^64.")
@pytest.mark.parametrize("thresholds", [FOUR, FIVE, SIX], ids=str)
def test_every_set_of_survivors_at_or_above_the_threshold_opens_to_its_exact_sum(thresholds: Thresholds) -> None:
    for survivors in subsets(Sum(thresholds).names, thresholds.threshold):
        run = Sum(thresholds)
        assert np.array_equal(run.opened(survivors), run.expected(survivors))


@pytest.mark.parametrize("thresholds", [FOUR, SIX], ids=str)
def test_no_set_below_the_threshold_is_fixed(thresholds: Thresholds) -> None:
    run = Sum(thresholds)
    for survivors in subsets(run.names):
        if len(survivors) < thresholds.threshold:
            run = Sum(thresholds)
            run.send(survivors)
            refused(Refusal.SURVIVORS_TOO_FEW, run.session.fix)
            assert run.session.state is State.OPEN


@pytest.mark.parametrize("thresholds", [FOUR, FIVE, SIX], ids=str)
def test_any_t_that_answer_open_the_sum_and_all_of_them_if_a_node_is_missing(thresholds: Thresholds) -> None:
    for survivors in subsets(Sum(thresholds).names, thresholds.threshold):
        run = Sum(thresholds)
        run.send(survivors)
        run.session.fix()
        run.sign()
        before = dict(run.session.records)
        run.answer()
        answers = {name: f"opening-{run.roster.positions[name]}" for name in survivors}
        fewest = thresholds.threshold if survivors == run.names else len(survivors)
        for answering in subsets(survivors):
            records = {**before, **{answers[name]: run.session.records[answers[name]] for name in answering}}
            session = Session.resume(run.roster, run.session.context, run.length, records)
            assert session.can_open is (len(answering) >= fewest)
            if session.can_open:
                session.open()
                assert np.array_equal(session.total, run.expected(survivors))
            else:
                refused(Refusal.STATE, session.open)


def test_the_set_is_signed_once_any_t_have_signed() -> None:
    for signing in subsets(Sum(FIVE).names):
        run = Sum(FIVE)
        run.send()
        run.session.fix()
        run.sign(signing)
        assert run.session.is_signed is (len(signing) >= FIVE.threshold)
        assert run.session.unsigned == tuple(name for name in run.names if name not in signing)


def test_fewer_than_t_signatures_ask_for_no_opening() -> None:
    run = Sum(FOUR)
    run.send()
    run.session.fix()
    run.sign(run.names[:2])
    refused(Refusal.SIGNATURES_TOO_FEW, lambda: run.session.opening_question(run.names[0]))
    run.sign(run.names[3:])
    run.answer((*run.names[:2], run.names[3]))
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names))


@settings(max_examples=15)
@given(some.permutations(range(5)), some.permutations(range(5)), some.permutations(range(5)))
def test_the_order_of_arrival_changes_nothing(sent: list[int], signing: list[int], answering: list[int]) -> None:
    run = Sum(FIVE)
    run.send(run.names[index] for index in sent)
    run.session.fix()
    run.sign(run.names[index] for index in signing)
    run.answer(run.names[index] for index in answering)
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names))


@pytest.mark.guarantee("a vector that arrives after the set is fixed is never used.")
def test_a_late_vector_is_acknowledged_and_not_used() -> None:
    run = Sum(FOUR)
    late = run.names[-1]
    run.send(run.names[:3])
    run.session.fix()
    message = run.nodes[late].vector(run.session.context, run.values[late])
    assert run.session.add_masked(late, message) is None
    assert message not in run.session.records.values()
    run.sign()
    run.answer()
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names[:3]))


def test_a_vector_that_arrived_and_was_not_chosen_leaves_the_records() -> None:
    run = Sum(FOUR)
    run.send()
    before = set(run.session.records)
    run.session.fix(run.names[1:])
    assert before - set(run.session.records) == {"masked-1"}
    assert run.session.missing == run.names[:1]


@pytest.mark.guarantee("a server that was killed in any state goes on with the same set and the same sum.")
@pytest.mark.parametrize("survivors", [3, 4])
def test_a_server_killed_after_every_record_opens_the_same_sum(survivors: int) -> None:
    run = Sum(FOUR)
    disk: dict[str, bytes] = {}

    def killed() -> None:
        assert run.session.records.items() <= disk.items()
        state = run.session.state
        run.session = Session.resume(run.roster, run.session.context, run.length, disk)
        assert run.session.state is state

    for name in run.names[:survivors]:
        disk.update([run.session.add_masked(name, run.nodes[name].vector(run.session.context, run.values[name]))])
        killed()
    disk.update([run.session.fix()])
    question = run.session.survivors_question()
    killed()
    assert run.session.survivors_question() == question
    for name in run.session.unsigned:
        disk.update([run.session.add_signature(name, run.nodes[name].sign(run.session.context, question))])
        killed()
    for name in run.session.unopened:
        opening = run.session.opening_question(name)
        disk.update([run.session.add_opening(name, run.nodes[name].open(run.session.context, opening))])
        killed()
    disk.update([run.session.open()])
    killed()
    assert np.array_equal(run.session.total, run.expected(run.names[:survivors]))
    assert set(run.session.records) == {"survivors", "total"}


def test_a_lost_round_stays_lost_and_is_asked_nothing() -> None:
    run = Sum(FOUR)
    run.send()
    fixed = run.session.fix()
    lost = run.session.give_up()
    resumed = Session.resume(run.roster, run.session.context, run.length, dict([fixed, lost]))
    for session in (run.session, resumed):
        assert session.state is State.LOST
        assert session.survivors is not None
        for step in (session.fix, session.survivors_question, session.open, session.give_up):
            refused(Refusal.STATE, step)
        refused(Refusal.STATE, lambda: session.opening_question(run.names[0]))  # noqa: B023 - called at once


def test_records_of_another_session_are_refused() -> None:
    run, other = Sum(FOUR), Sum(FOUR, round=2)
    run.send()
    refused(
        Refusal.OTHER_CONTEXT, lambda: Session.resume(run.roster, other.session.context, LENGTH, run.session.records)
    )


def test_records_of_other_vectors_under_the_same_survivors_are_refused() -> None:
    run, other = Sum(FOUR), Sum(FOUR)
    run.send()
    run.session.fix()
    other.send()
    records = {**run.session.records, "masked-1": other.session.records["masked-1"]}
    refused(Refusal.STRANGER, lambda: Session.resume(run.roster, run.session.context, LENGTH, records))


def test_a_node_that_answers_twice_is_refused_unless_it_repeats_itself() -> None:
    run, again = Sum(FOUR), Sum(FOUR)
    name = run.names[0]
    run.send()
    repeated = run.session.records["masked-1"]
    assert run.session.add_masked(name, repeated) is None
    other = again.nodes[name].vector(run.session.context, again.values[name])
    refused(Refusal.ANSWERED_TWICE, lambda: run.session.add_masked(name, other))
    run.session.fix()
    run.sign()
    run.answer()
    assert run.session.add_opening(name, run.session.records["opening-1"]) is None


def test_a_message_under_another_name_is_refused() -> None:
    run = Sum(FOUR)
    first, other, *_ = run.names
    message = run.nodes[first].vector(run.session.context, run.values[first])
    refused(Refusal.STRANGER, lambda: run.session.add_masked(other, message))
    refused(Refusal.STRANGER, lambda: run.session.add_masked("stranger", message))


def test_a_vector_of_another_length_is_refused() -> None:
    run, longer = Sum(FOUR), Sum(FOUR, length=6)
    name = run.names[0]
    message = longer.nodes[name].vector(run.session.context, longer.values[name])
    refused(Refusal.MALFORMED, lambda: run.session.add_masked(name, message))
