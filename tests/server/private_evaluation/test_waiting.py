"""Whom an evaluation asks, and when it is over: no clock but the test's."""

import pytest

from server.private_evaluation.waiting import Waiting


@pytest.fixture
def waiting() -> Waiting:
    waiting = Waiting(quorum=2, deadline_s=100, grace_s=10, began=0)
    waiting.note_asked(waiting.due([1, 2, 3], 0))
    return waiting


def test_each_node_present_is_asked_once(waiting: Waiting) -> None:
    assert waiting.due([1, 2, 3], 50) == []
    assert waiting.due([1, 2, 3, 4], 50) == [4], "and whoever comes later"


def test_whose_connection_broke_is_asked_again_after_a_pause(waiting: Waiting) -> None:
    waiting.note_gone(2, 5)
    assert waiting.due([1, 2, 3], 5.5) == [] and waiting.due([1, 2, 3], 6) == [2]


def test_it_is_over_when_all_have_answered(waiting: Waiting) -> None:
    for node in (1, 2, 3):
        assert not waiting.is_over([], node)
        waiting.note_answer(node, node, counted=False)
    assert waiting.is_over([], 3) and waiting.late == []


def test_it_is_over_at_once_if_all_had_answered_before_the_server_was_cut_off() -> None:
    resumed = Waiting(quorum=1, deadline_s=100, grace_s=10, began=0)
    resumed.note_answer(1, 0, counted=True)
    assert resumed.due([1], 0) == [] and resumed.is_over([], 0)


def test_who_may_still_come_is_waited_for(waiting: Waiting) -> None:
    for node in (1, 2, 3):
        waiting.note_answer(node, 1, counted=node == 1)
    assert not waiting.is_over([4], 2) and waiting.is_over([4], 100)


def test_with_a_quorum_of_counts_only_the_grace_is_waited(waiting: Waiting) -> None:
    waiting.note_answer(1, 2, counted=True)
    waiting.note_answer(2, 4, counted=True)
    assert not waiting.is_over([], 13.9) and waiting.is_over([], 14) and waiting.late == [3]


@pytest.mark.guarantee("an evaluation lasts at most one deadline of a round, and nobody's silence ends a run.")
def test_at_the_deadline_it_is_over_whoever_is_silent() -> None:
    nobody = Waiting(quorum=2, deadline_s=100, grace_s=10, began=0)
    assert not nobody.is_over([], 99.9) and nobody.is_over([], 100)
    silent = Waiting(quorum=2, deadline_s=100, grace_s=1000, began=0)
    silent.note_asked([1, 2])
    silent.note_answer(1, 1, counted=True)
    assert silent.is_over([], 100) and silent.late == [2]


def test_whose_connection_stays_broken_is_waited_for_no_longer(waiting: Waiting) -> None:
    for node in (1, 3):
        waiting.note_answer(node, 1, counted=False)
    waiting.note_gone(2, 1)
    assert not waiting.is_over([], 60) and waiting.is_over([], 61)


def test_a_second_answer_and_a_strangers_are_none(waiting: Waiting) -> None:
    assert waiting.admits(1) and not waiting.admits(9)
    waiting.note_answer(1, 1, counted=True)
    assert not waiting.admits(1)
