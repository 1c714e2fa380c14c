"""A session in bounded memory: the same sums as one that keeps every vector, also after a kill."""

import numpy as np
import pytest

from server.secure_sum.running_sum import RunningSum
from shared.secure_sum.refusals import Refusal
from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Sum, refused

FOUR = Thresholds.by_default(4)


def running(length: int = 5) -> Sum:
    run = Sum(FOUR, length=length)
    run.session = RunningSum(run.roster, run.context(), length)
    return run


@pytest.mark.parametrize("survivors", [3, 4])
@pytest.mark.guarantee("no masked vector is kept once it is in the sum, and the same vectors open to the same sum.")
def test_a_running_sum_opens_to_the_exact_sum_and_keeps_no_vector(survivors: int) -> None:
    run = running(length=4000)
    run.send(run.names[:survivors])
    assert sum(map(len, run.session.records.values())) < 8 * 4000, "no vector is kept"
    run.session.fix()
    assert sum(map(len, run.session.records.values())) < 2 * 8 * 4000, "one sum is kept"
    run.sign()
    run.answer()
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names[:survivors]))


def test_a_set_that_was_fixed_is_the_same_after_a_kill_in_any_state() -> None:
    run = running()
    run.send(run.names[:3])
    run.session.fix()
    records, question = run.session.records, run.session.survivors_question()
    for steps in range(3):
        run.session = RunningSum.resume(run.roster, run.context(), run.length, records)
        assert run.session.survivors_question() == question and run.session.records == records
        if steps > 0:
            run.sign()
        if steps > 1:
            run.answer()
            run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names[:3]))


def test_vectors_that_come_twice_or_late_or_too_seldom_are_no_part_of_it() -> None:
    run = running()
    run.send(run.names[:2])
    refused(Refusal.SURVIVORS_TOO_FEW, run.session.fix)
    first = run.nodes[run.names[0]]
    assert first.masked is not None
    message = first.masked.message
    refused(Refusal.ANSWERED_TWICE, lambda: run.session.add_masked(run.names[0], message))
    run.send(run.names[2:3])
    refused(Refusal.STRANGER, lambda: run.session.fix(run.names[:2]))
    run.session.fix()
    late = run.names[3]
    assert run.session.add_masked(late, run.nodes[late].vector(run.session.context, run.values[late])) is None
    run.sign()
    run.answer()
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names[:3]))


@pytest.mark.parametrize("key", ["survivors", "sum", "masked-2"])
def test_records_that_lack_a_part_or_are_of_another_round_resume_nothing(key: str) -> None:
    run, other = running(), Sum(FOUR, round=2)
    run.send()
    run.session.fix()
    records = dict(run.session.records)
    refused(Refusal.OTHER_CONTEXT, lambda: RunningSum.resume(run.roster, other.context(), run.length, records))
    del records[key]
    refused(Refusal.MALFORMED, lambda: RunningSum.resume(run.roster, run.context(), run.length, records))
    refused(Refusal.MALFORMED, lambda: RunningSum.resume(run.roster, run.context(), 4, dict(run.session.records)))


def test_a_vector_that_is_left_out_is_no_part_of_the_sum_and_only_it_can_be_taken_away() -> None:
    run = running()
    run.send()
    away, other = run.nodes[run.names[3]].masked, run.nodes[run.names[2]].masked
    assert away is not None and other is not None
    refused(Refusal.STRANGER, lambda: run.session.leave_out(run.names[3], other.message))
    run.session.leave_out(run.names[3], away.message)
    refused(Refusal.STRANGER, lambda: run.session.leave_out(run.names[3], away.message))
    run.session.fix()
    refused(Refusal.STATE, lambda: run.session.leave_out(run.names[2], other.message))
    run.sign()
    run.answer()
    run.session.open()
    assert np.array_equal(run.session.total, run.expected(run.names[:3]))
