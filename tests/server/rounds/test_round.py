"""A round is asked again while it could make its quorum, whoever is silent, away or refuses, and never for ever."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rounds.round import COMES_BACK_S, MOST_ASKS, Decision, Round, closing_time

DEADLINE_S = 100.0
CODES = ("failed", "lost", "refused_budget")
Fault = tuple[Literal["silent", "late", "gone"], float]
"""What becomes of one question, and for how many seconds the answer is late or the node is away."""


@dataclass
class Node:
    """A node: what it answers, how long that takes, and what becomes of its first questions."""

    answer: str = "update"
    delay: float = 1.0
    faults: Sequence[Fault] = ()


class Played:
    """A round, played to its end on a clock of its own; nodes stand in the order of the round."""

    def __init__(self, nodes: Mapping[int, Node], quorum: int, cohort: int | None, grace_s: float) -> None:
        self.nodes, self.round, self.now, self.outcome = nodes, Round(1, quorum, DEADLINE_S, grace_s), 0.0, ""
        self.events: list[tuple[float, int, str]] = []
        self.away_until, self.questions = dict.fromkeys(nodes, 0.0), dict.fromkeys(nodes, 0)
        self.answered, first = set[int](), list(nodes)[:cohort]
        self.round.begin(first, 0.0)
        self.ask(first)
        while not self.outcome:
            self.take_events()
            self.decide()
            self.now += 1.0
            assert self.now < 40 * DEADLINE_S, "the round never ended"

    def ask(self, chosen: Sequence[int]) -> None:
        for number in chosen:
            node, question = self.nodes[number], self.questions[number]
            self.questions[number] += 1
            kind, seconds = node.faults[question] if question < len(node.faults) else ("", 0.0)
            if kind == "gone":
                self.away_until[number] = self.now + seconds
                heapq.heappush(self.events, (self.now, number, "gone"))
            elif kind != "silent":
                heapq.heappush(self.events, (self.now + node.delay + seconds, number, node.answer))

    def take_events(self) -> None:
        while self.events and self.events[0][0] <= self.now:
            _when, number, answer = heapq.heappop(self.events)
            if answer == "gone":
                self.round.note_gone(number, self.now)
            elif number not in self.answered and self.round.admits(number):
                self.answered.add(number)
                if answer == "update":
                    self.round.accept(number, self.now)
                else:
                    self.round.refuse(number, answer)

    def decide(self) -> None:
        present = [number for number in self.nodes if self.away_until[number] <= self.now]
        decision = self.round.decide(self.now, present, set(self.nodes) - set(present))
        if self.round.only_waits(self.now):
            assert decision == Decision("wait")
        if decision.act in ("aggregate", "lose"):
            self.outcome = decision.act
        elif decision.act != "wait":
            self.round.ask(decision.nodes, self.now, again=decision.act == "ask again")
            self.ask(decision.nodes)


def play(nodes: Mapping[int, Node], *, quorum: int, cohort: int | None = None, grace_s: float = math.inf) -> Played:
    return Played(nodes, quorum, cohort, grace_s)


DELAYS = st.floats(0.5, DEADLINE_S - 5.0)
FAULTS = st.lists(st.tuples(st.sampled_from(["silent", "late", "gone"]), st.floats(1.0, 2.0 * DEADLINE_S)), max_size=3)
NODES = st.lists(
    st.builds(Node, st.sampled_from(["update", "update", *CODES]), DELAYS, FAULTS), min_size=1, max_size=7
).map(lambda nodes: dict(enumerate(nodes, start=1)))


@pytest.mark.guarantee(
    "a round is lost only if those without an answer could not make its quorum, or if it was asked ten times."
)
@given(NODES, st.integers(1, 4), st.none() | st.integers(1, 4))
def test_a_round_is_aggregated_whenever_enough_nodes_have_an_update_to_give(
    nodes: dict[int, Node], quorum: int, more: int | None
) -> None:
    played = play(nodes, quorum=quorum, cohort=None if more is None else quorum + more - 1)
    could = sum(node.answer == "update" for node in nodes.values()) >= quorum
    assert played.outcome == ("aggregate" if could else "lose"), "faults end, and what could be made is made"
    assert len(set(played.round.accepted)) == len(played.round.accepted)
    assert all(nodes[number].answer == "update" for number in played.round.accepted)


@pytest.mark.guarantee("while its quorum of members is present, a round lasts at most ten deadlines.")
@given(st.lists(st.booleans(), min_size=2, max_size=6), st.integers(2, 6))
def test_silence_holds_a_round_up_for_ten_deadlines_and_no_longer(answers: list[bool], quorum: int) -> None:
    silent = Node(faults=[("silent", 0.0)] * (3 * MOST_ASKS))
    nodes = {number: Node() if answer else silent for number, answer in enumerate(answers, start=1)}
    played = play(nodes, quorum=min(quorum, len(nodes)))
    if sum(answers) < min(quorum, len(nodes)):
        assert played.outcome == "lose" and played.round.asks == MOST_ASKS
        assert played.now == pytest.approx(MOST_ASKS * DEADLINE_S, abs=MOST_ASKS)
        assert all(played.round.times[n] == (1 if answers[n - 1] else MOST_ASKS) for n in nodes), "who answered is done"
    else:
        assert played.outcome == "aggregate" and played.round.asks == 1 and played.now <= DEADLINE_S + 1


@pytest.mark.guarantee("an update counts once, and the same answers make the same adapter in whatever order they come.")
@given(
    st.lists(st.tuples(st.sampled_from(["update", "update", *CODES]), DELAYS), min_size=2, max_size=8),
    st.integers(1, 4),
    st.randoms(),
)
def test_the_order_of_arrival_changes_neither_whom_a_round_asks_nor_what_it_adds_up(
    answers: list[tuple[str, float]], quorum: int, shuffled: object
) -> None:
    delays = [delay for _answer, delay in answers]
    shuffled.shuffle(delays)  # type: ignore[attr-defined]
    # fill-ups are asked after the first answers: all of them have to come before the deadline
    orders = [
        {n: Node(answer, delay / 10) for n, ((answer, _), delay) in enumerate(zip(answers, times, strict=True), 1)}
        for times in ([delay for _answer, delay in answers], delays)
    ]
    ends = [play(nodes, quorum=quorum, cohort=quorum) for nodes in orders]
    # a round that is lost may end before the last in line is asked: that one then pays nothing
    outcomes = [
        (end.outcome, end.outcome == "aggregate" and (end.round.times, sorted(end.round.accepted))) for end in ends
    ]
    assert outcomes[0] == outcomes[1]


UPDATE, LOST, FAILED = Node(), Node("lost"), Node("failed")
SILENT, BRIEFLY_GONE = Node(faults=[("silent", 0.0)]), Node(faults=[("gone", 20.0)])
LONG_GONE = Node(faults=[("gone", 3 * COMES_BACK_S)])
CASES: dict[str, tuple[list[Node], int, int | None, str, int]] = {
    "a refusal: the next in line is asked": ([LOST, UPDATE, UPDATE, UPDATE], 2, 2, "aggregate", 3),
    "one refusal after the other": ([FAILED, LOST, LOST, UPDATE], 1, 1, "aggregate", 4),
    "a quorum in spite of a refusal: nobody else is asked": ([LOST, UPDATE, UPDATE], 1, 2, "aggregate", 2),
    "nobody left who could make it": ([LOST, UPDATE], 2, None, "lose", 2),
    "silence to the deadline: asked again beside the next in line": ([SILENT, UPDATE, UPDATE], 2, 2, "aggregate", 3),
    "a connection that breaks for a moment": ([BRIEFLY_GONE, UPDATE, UPDATE], 2, 2, "aggregate", 2),
    "a connection that stays away: the next in line": ([LONG_GONE, UPDATE, UPDATE], 2, 2, "aggregate", 3),
}
"""Nodes in the round's order, quorum, cohort; the outcome, and how many of the nodes are asked."""


@pytest.mark.parametrize("case", CASES)
def test_whom_a_round_asks(case: str) -> None:
    nodes, quorum, cohort, outcome, asked = CASES[case]
    played = play(dict(enumerate(nodes, start=1)), quorum=quorum, cohort=cohort)
    assert (played.outcome, sorted(played.round.times)) == (outcome, [*range(1, asked + 1)])


def test_a_round_that_cannot_be_made_any_more_hears_out_whom_it_asked() -> None:
    played = play({1: LOST, 2: Node(delay=50.0)}, quorum=2)
    assert played.outcome == "lose" and played.round.accepted == [2] and 50.0 <= played.now < DEADLINE_S


def test_a_late_reply_counts_until_the_round_is_over() -> None:
    played = play({1: Node(), 2: Node(faults=[("late", 1.5 * DEADLINE_S), ("silent", 0.0)])}, quorum=2)
    assert played.outcome == "aggregate" and played.round.asks == 2 and played.now < 2 * DEADLINE_S
    assert sorted(played.round.accepted) == [1, 2], "the reply to the first question came in the second ask"


def test_an_outage_of_everybody_is_waited_out_and_costs_no_ask() -> None:
    away = 30 * DEADLINE_S
    played = play({1: Node(), 2: Node(faults=[("gone", away)]), 3: Node(faults=[("gone", away)])}, quorum=3)
    assert played.outcome == "aggregate" and played.now >= away and played.round.asks <= 2


def test_a_round_that_has_its_quorum_waits_a_moment_for_a_connection_that_broke() -> None:
    def after(away: float) -> Played:
        return play({1: Node(delay=20.0), 2: Node(delay=20.0), 3: Node(faults=[("gone", away)])}, quorum=2)

    assert sorted(after(40.0).round.accepted) == [1, 2, 3]
    gone = after(10 * DEADLINE_S)
    assert sorted(gone.round.accepted) == [1, 2] and gone.now == pytest.approx(COMES_BACK_S, abs=2.0)


def test_a_round_that_was_cut_off_waits_for_whom_it_had_asked_and_goes_on_counting() -> None:
    current = Round(4, 2, DEADLINE_S)
    current.begin([1], 0.0, asked_before=[1, 2], missed=3)
    assert (current.asks, sorted(current.times)) == (4, [1, 2])
    assert current.decide(0.5, [1], [3]) == Decision("wait")
    assert current.decide(2.0, [1, 2, 3]) == Decision("ask", [2]), "who may have paid comes before anybody else"


@pytest.mark.guarantee(
    "silence delays a round that has its quorum by its grace, or by as long again as the quorum took."
)
@given(st.lists(st.floats(1.0, DEADLINE_S - 5.0), min_size=2, max_size=6), st.floats(0.0, 50.0))
def test_a_round_closes_at_its_quorum_and_a_grace(delays: list[float], grace_s: float) -> None:
    quorum = len(delays) - 1
    silent = Node(faults=[("silent", 0.0)])
    answering = {number: Node(delay=delay) for number, delay in enumerate(delays[1:], start=1)}
    played = play({**answering, len(delays): silent}, quorum=quorum, grace_s=grace_s)
    reached = math.ceil(max(delays[1:]))
    assert played.outcome == "aggregate" and played.round.asks == 1
    assert played.now - 1 == pytest.approx(min(DEADLINE_S, reached + max(grace_s, reached)), abs=1.0)


def test_one_silent_node_costs_seconds_and_not_the_deadline() -> None:
    silent = Node(faults=[("silent", 0.0)])
    played = play({1: Node(delay=1.0), 2: Node(delay=1.0), 3: silent}, quorum=2, grace_s=5.0)
    assert played.now <= 1.0 + 5.0 + 1.0 < DEADLINE_S and sorted(played.round.accepted) == [1, 2]


@given(DELAYS, st.floats(0.0, 200.0))
def test_who_answers_within_the_quorums_own_time_again_is_never_left_out(delay: float, grace_s: float) -> None:
    played = play({1: Node(delay=delay), 2: Node(delay=min(2 * delay, DEADLINE_S - 5.0))}, quorum=1, grace_s=grace_s)
    assert sorted(played.round.accepted) == [1, 2], "a machine at half the others' speed takes part"


def test_the_deadline_stays_the_ceiling() -> None:
    assert closing_time(0.0, 10.0, grace_s=30.0, deadline=100.0) == 40.0
    assert closing_time(0.0, 40.0, grace_s=30.0, deadline=100.0) == 80.0
    assert closing_time(0.0, 60.0, grace_s=30.0, deadline=100.0) == 100.0
    assert closing_time(0.0, 10.0, grace_s=math.inf, deadline=100.0) == 100.0, "a simulation waits for everybody"


def test_a_round_is_stalled_past_its_deadline_while_no_round_could_begin() -> None:
    current = Round(1, 2, DEADLINE_S)
    current.begin([1, 2], 0.0)
    assert not current.is_stalled(DEADLINE_S - 1, [1]) and current.is_stalled(DEADLINE_S, [1])
    assert not current.is_stalled(DEADLINE_S, [1, 2]), "then it is asked again"
    for node in (1, 2):
        current.accept(node, 1.0)
    assert not current.is_stalled(DEADLINE_S, [])
