"""Who is asked: whoever said yes; the undecided are asked again soon, the others seldom."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from server.rounds import participants as roster
from server.rounds.participants import ASK_AGAIN_S, Approving, Everyone, Stances
from shared.errors import RunError
from shared.protocol.flower_records import decode_offer, encode_offer_reply
from shared.protocol.messages import OfferReply, Status, StudyOffer

STANCES = [Status.APPROVED, Status.AWAITING_APPROVAL, Status.REJECTED, Status.REFUSED_POLICY, Status.REFUSED_BUDGET]
OFFER = StudyOffer("r-1", "{}")


class Grid:
    """Nodes answer at once with what stands for them now."""

    def __init__(self, **stances: Status) -> None:
        self.stances = {int(name[1:]): stance for name, stance in stances.items()}
        self.asked: list[int] = []
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.stances)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node, name = message.metadata.dst_node_id, f"m-{len(self.asked)}"
            self.asked.append(node)
            assert decode_offer(message.content) == OFFER
            message.metadata.__dict__["_message_id"] = name
            self._replies[name] = Message(
                encode_offer_reply(OfferReply(OFFER.study_run, self.stances[node])), reply_to=message
            )
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(name) for name in message_ids if name in self._replies]


@given(st.dictionaries(st.integers(1, 6), st.sampled_from(STANCES)), st.sets(st.integers(1, 6)))
def test_members_are_those_present_who_said_yes(by_node: dict[int, Status], present: set[int]) -> None:
    stances = Stances(by_node=by_node)
    assert set(stances.members(present)) == {n for n in present if by_node.get(n) is Status.APPROVED}
    assert not set(stances.members(present)) & set(stances.undecided(present))
    assert set(stances.due(present, 0.0)) == present - set(stances.members(present)), "nobody was ever asked"


def test_who_said_no_is_asked_seldom_and_who_thinks_is_asked_soon() -> None:
    stances = Stances({1: Status.REJECTED, 2: Status.AWAITING_APPROVAL}, {1: 100.0, 2: 100.0})
    assert stances.due({1, 2}, 100.0 + ASK_AGAIN_S) == [2]
    assert stances.due({1, 2}, 100.0 + 20 * ASK_AGAIN_S) == [1, 2]


def test_whoever_thinks_for_long_is_asked_less_and_less_and_at_least_every_minute() -> None:
    stances, now, asked = Stances(), 0.0, list[float]()
    while now < 3 * 86_400:
        if stances.due({1}, now):
            asked.append(now)
            stances.asked(1, now)
            stances.said(1, Status.AWAITING_APPROVAL, now)
        now += 1.0
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert pauses[:2] == [2.0, 2.0] and pauses == sorted(pauses) and pauses[-1] == 60.0
    stances.said(1, Status.REFUSED_LEDGER, now)
    stances.asked(1, now)
    assert stances.due({1}, now + ASK_AGAIN_S) == [1], "whoever says something new is asked soon again"


def test_the_first_round_waits_for_whoever_is_still_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED, n3=Status.AWAITING_APPROVAL, n4=Status.REJECTED)
    told: list[dict[str, list[int]]] = []
    monkeypatch.setattr(roster, "ASK_AGAIN_S", 0.0)
    waits = 0

    def pause(_seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            grid.stances[3] = Status.APPROVED

    monkeypatch.setattr(roster.time, "sleep", pause)
    asked = Approving(grid, OFFER, quorum=2, patience_s=600.0, on_change=told.append)
    assert asked.members() == [1, 2, 3]
    assert waits >= 3 and told[-1] == {"approved": [1, 2, 3], "rejected": [4]}


def test_a_node_that_does_not_know_the_run_any_more_is_shown_it_again() -> None:
    grid: Any = Grid(n1=Status.APPROVED, n2=Status.APPROVED)
    asked = Approving(grid, OFFER, quorum=1, patience_s=0.0)
    assert asked.members() == [1, 2]
    asked.heard(1, Status.REFUSED_POLICY)
    grid.stances[1] = Status.AWAITING_APPROVAL
    assert asked.members() == [2]


def test_too_few_nodes_end_with_a_clear_message() -> None:
    grid: Any = Grid(n1=Status.APPROVED)
    with pytest.raises(RunError, match="Expected at least 2 nodes, got 1"):
        Everyone(grid, quorum=2, patience_s=0.0).members()
