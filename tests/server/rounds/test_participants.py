"""Who takes part: whoever approved; the undecided are asked again quickly, the others seldom."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from server.rounds import participants
from server.rounds.participants import ASK_AGAIN_S, AllPresent, Answers, ApprovedOnly, why_it_waits
from shared.errors import RunError
from shared.protocol.flower_records import decode_offer, encode_offer_reply
from shared.protocol.messages import OfferReply, Status, StudyOffer

ANSWERS = [Status.APPROVED, Status.AWAITING_APPROVAL, Status.REJECTED, Status.REFUSED_POLICY, Status.REFUSED_BUDGET]
OFFER = StudyOffer("r-1", "{}")
REFUSED = "cannot reach its quorum: 1 refused policy, 1 rejected"


class Grid:
    """Nodes answer at once with the answer that is set for them now."""

    def __init__(self, **answers: Status) -> None:
        self.answers = {int(name[1:]): answer for name, answer in answers.items()}
        self.asked: list[int] = []
        self.deaf = set[int]()
        self.sizes = dict[int, int]()
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.answers)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node, name = message.metadata.dst_node_id, f"m-{len(self.asked)}"
            self.asked.append(node)
            assert decode_offer(message.content) == OFFER
            message.metadata.__dict__["_message_id"] = name
            self._replies[name] = Message(
                encode_offer_reply(
                    OfferReply(OFFER.study_run, self.answers[node], declared_size=self.sizes.get(node, 0))
                ),
                reply_to=message,
            )
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(name) for name in message_ids if name in self._replies and not self._is_deaf(name)]

    def _is_deaf(self, name: str) -> bool:
        return self.asked[int(name.removeprefix("m-"))] in self.deaf


@given(st.dictionaries(st.integers(1, 6), st.sampled_from(ANSWERS)), st.sets(st.integers(1, 6)))
def test_members_are_those_present_who_approved(by_node: dict[int, Status], present: set[int]) -> None:
    answers = Answers(by_node=by_node)
    assert set(answers.members(present)) == {n for n in present if by_node.get(n) is Status.APPROVED}
    assert not set(answers.members(present)) & set(answers.undecided(present))
    assert set(answers.due(present, 0.0)) == present - set(answers.members(present)), "nobody was ever asked"


def test_who_refused_is_asked_seldom_and_who_is_undecided_is_asked_quickly() -> None:
    answers = Answers({1: Status.REJECTED, 2: Status.AWAITING_APPROVAL}, {1: 100.0, 2: 100.0})
    assert answers.due({1, 2}, 100.0 + ASK_AGAIN_S) == [2]
    assert answers.due({1, 2}, 100.0 + 20 * ASK_AGAIN_S) == [1, 2]


def test_whoever_is_undecided_for_long_is_asked_less_and_less_and_at_least_every_minute() -> None:
    answers, now, asked = Answers(), 0.0, list[float]()
    while now < 3 * 86_400:
        if answers.due({1}, now):
            asked.append(now)
            answers.note_asked(1, now)
            answers.note(1, Status.AWAITING_APPROVAL, now)
        now += 1.0
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert pauses[:2] == [2.0, 2.0] and pauses == sorted(pauses) and pauses[-1] == 60.0
    answers.note(1, Status.REFUSED_LEDGER, now)
    answers.note_asked(1, now)
    assert answers.due({1}, now + ASK_AGAIN_S) == [1], "whoever changes its answer is asked again quickly"


def test_the_first_round_waits_for_whoever_is_still_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED, n3=Status.AWAITING_APPROVAL, n4=Status.REJECTED)
    reports: list[dict[str, list[int]]] = []
    monkeypatch.setattr(participants, "ASK_AGAIN_S", 0.0)
    waits = 0

    def pause(_seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            grid.answers[3] = Status.APPROVED

    monkeypatch.setattr(participants.time, "sleep", pause)
    approved = ApprovedOnly(grid, OFFER, quorum=2, patience_s=600.0, on_change=reports.append)
    assert approved.members() == [1, 2, 3]
    assert waits >= 3 and reports[-1] == {"approved": [1, 2, 3], "rejected": [4]}


def test_a_node_that_does_not_know_the_run_any_more_is_offered_it_again() -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED)
    approved = ApprovedOnly(grid, OFFER, quorum=1, patience_s=0.0)
    assert approved.members() == [1, 2]
    approved.note_refusal(1, Status.REFUSED_POLICY)
    grid.answers[1] = Status.AWAITING_APPROVAL
    assert approved.members() == [2]


@pytest.mark.guarantee("whoever kept missing rounds is asked for no further one before it has answered an offer.")
def test_a_node_that_kept_missing_rounds_is_back_when_it_answers_an_offer() -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED)
    approved = ApprovedOnly(grid, OFFER, quorum=1, patience_s=0.0)
    assert approved.members() == [1, 2]
    grid.deaf = {2}
    approved.note_silence(2)
    assert approved.members() == [1] == approved.look().present and grid.asked.count(2) == 2
    grid.deaf = set()
    assert approved.look().present == [1, 2]


def test_who_has_approved_is_known_while_it_is_away_and_nobody_waits_to_look() -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED, n3=Status.AWAITING_APPROVAL)
    approved = ApprovedOnly(grid, OFFER, quorum=5, patience_s=600.0)
    assert approved.look() == ([1, 2], [], [3]), "fewer than the quorum"
    del grid.answers[2]
    assert approved.look() == ([1], [2], [3])
    assert AllPresent(grid, quorum=5, patience_s=600.0).look() == ([1, 3], [], [])


def test_too_few_nodes_end_with_a_clear_message() -> None:
    grid: Any = Grid(n1=Status.APPROVED)
    with pytest.raises(RunError, match="Expected at least 2 nodes, got 1"):
        AllPresent(grid, quorum=2, patience_s=0.0).members()


@pytest.mark.parametrize(
    ("by_status", "away", "enrolled", "words"),
    [
        ({}, 0, 0, "waiting for approvals: 0 of 3"),
        ({"approved": [1, 2], "awaiting_approval": [3]}, 0, 3, "waiting for approvals: 2 of 3"),
        ({"approved": [1]}, 1, 3, "waiting for approvals: 2 of 3"),
        ({"approved": [1]}, 2, 3, "waiting for nodes: 1 of 3 are present"),
        ({"refused_budget": [1, 2, 3]}, 0, 3, "cannot reach its quorum: 3 refused budget"),
        ({"approved": [1, 2], "rejected": [3], "refused_policy": [4]}, 0, 4, REFUSED),
        ({"refused_budget": [1, 2, 3]}, 0, 6, "waiting for approvals: 0 of 3"),
        ({"refused_budget": [1]}, 0, 2, "waiting for approvals: 0 of 3"),
    ],
)
def test_what_a_run_waits_for_is_said_in_words(
    by_status: dict[str, list[int]], away: int, enrolled: int, words: str
) -> None:
    assert why_it_waits(by_status, away=away, quorum=3, enrolled=enrolled) == words


def test_a_run_says_that_it_waits_and_that_it_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.REFUSED_BUDGET)
    waits, enough = list[tuple[dict[str, list[int]], list[int]]](), list[int]()

    def pause(_seconds: float) -> None:
        grid.answers[3] = Status.APPROVED

    monkeypatch.setattr(participants.time, "sleep", pause)
    approved = ApprovedOnly(
        grid,
        OFFER,
        quorum=2,
        patience_s=0.0,
        on_wait=lambda by_status, away: waits.append((by_status, away)),
        on_enough=lambda: enough.append(len(waits)),
    )
    assert approved.members() == [1, 3] and enough == [1]
    assert waits == [({"approved": [1], "refused_budget": [2]}, [])]


def test_a_round_whose_nodes_are_all_away_says_that_the_run_waits() -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED)
    said = list[Any]()
    approved = ApprovedOnly(
        grid,
        OFFER,
        quorum=2,
        patience_s=0.0,
        on_wait=lambda *what: said.append(what),
        on_enough=lambda: said.append("enough"),
    )
    approved.members()
    del grid.answers[2]
    approved.look()
    approved.note_stall(stalled=True)
    approved.note_stall(stalled=False)
    assert said == ["enough", ({"approved": [1]}, [2]), "enough"]


def test_the_size_that_a_node_names_with_its_approval_is_known() -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED)
    grid.sizes = {1: 8500}
    approved = ApprovedOnly(grid, OFFER, quorum=2, patience_s=0.0)
    assert approved.declared_size(1) is None
    approved.members()
    assert (approved.declared_size(1), approved.declared_size(2)) == (8500, None), "an older node names none"
    everyone = AllPresent(grid, quorum=2, patience_s=0.0, declared_sizes={2: 40})
    assert (everyone.declared_size(1), everyone.declared_size(2)) == (None, 40)
