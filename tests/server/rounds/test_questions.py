"""A reply belongs to the node that was asked, and a node that has answered is not listened to twice."""

from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message, RecordDict

from server.rounds.questions import Questions


class Grid:
    """Delivers whatever lies ready, all at once; takes no message to node 9."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.ready: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m-{len(self.sent)}"
            self.sent.append(message)
            ids.append("" if message.metadata.dst_node_id == 9 else message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        assert set(message_ids), "nobody asks for nothing"
        ready, self.ready = self.ready, []
        return ready


def questions(grid: Any) -> Questions:
    return Questions(grid, lambda node: Message(RecordDict(), node, "train"))


def test_the_replies_to_a_repeated_question_count_as_one() -> None:
    grid = Grid()
    asked = questions(grid)
    assert asked.ask([1, 2]) == [] and asked.ask([1]) == []
    grid.ready = [Message(RecordDict(), reply_to=message) for message in grid.sent]
    taken = []
    for node, _reply in asked.replies():
        taken.append(node)
        asked.close(node)
    assert taken == [1, 2] and not asked.under_way(1)


def test_the_same_reply_twice_and_one_to_nothing_come_from_whoever_sends_them() -> None:
    grid = Grid()
    asked = questions(grid)
    asked.ask([1])
    asked.ask([2])
    reply = Message(RecordDict(), reply_to=grid.sent[0])
    reply.metadata.__dict__["_src_node_id"] = 7
    grid.ready = [reply, reply]
    assert [node for node, _reply in asked.replies()] == [1, 7]


def test_a_question_that_ends_in_an_error_is_under_way_no_longer_and_another_one_is() -> None:
    grid = Grid()
    asked = questions(grid)
    asked.ask([1])
    asked.ask([1])
    for message, under_way in zip(list(grid.sent), (True, False), strict=True):
        grid.ready = [Message(Error(code=5, reason=""), reply_to=message)]
        assert [node for node, _reply in asked.replies()] == [1] and asked.under_way(1) is under_way
    assert list(asked.replies()) == []


def test_whom_no_message_reaches_is_named() -> None:
    asked = questions(Grid())
    assert asked.ask([1, 9]) == [9] and asked.under_way(1) and not asked.under_way(9)
    assert asked.ask([]) == []
