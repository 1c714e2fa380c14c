"""Our Grid over a SuperLink that announces replies before their bytes are there."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto, run_from_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from server.flower import grid as flower
from server.flower.grid import GuardedGrid
from server.settings import Home


class Superlink:
    """Announces each reply once; hands out the objects that have come."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[Any, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.known: set[str] = set()
        self.confirmed: list[str] = []

    def reply(self, question: str, node: int, *, comes: bool = True, claims: int | None = None) -> None:
        """A node answers; `claims` is who the reply's own bytes say it is from."""
        asked = Message(RecordDict({"q": ConfigRecord({"q": question})}), node, "train")
        asked.metadata.__dict__["_message_id"] = question
        written = Message(RecordDict({"a": ConfigRecord({"node": node})}), reply_to=asked)
        written.metadata.__dict__["_src_node_id"] = node if claims is None else claims
        message_id = written.object_id
        written.metadata.__dict__["_message_id"] = message_id
        with no_object_id_recompute():
            objects = {name: part.deflate() for name, part in get_all_nested_objects(written).items()}
            tree = get_object_tree(written)
        written.metadata.__dict__["_src_node_id"] = node
        self.replies[question] = message_to_proto(remove_content_from_message(written)), tree
        self.known |= objects.keys()
        if comes:
            self.objects |= objects
        self.late = {} if comes else objects

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        replies = [self.replies.pop(question) for question in list(request.message_ids) if question in self.replies]
        return PullAppMessagesResponse(
            messages_list=[message for message, _ in replies], message_object_trees=[tree for _, tree in replies]
        )

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802 - Flower's name
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=request.object_id in self.known,
            object_available=content is not None,
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802 - Flower's name
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def superlink() -> Superlink:
    return Superlink()


@pytest.fixture
def grid(superlink: Superlink, tmp_path: Path) -> GuardedGrid:
    made = GuardedGrid("127.0.0.1:1", "token", Home(tmp_path))
    vars(made)["_client"] = superlink
    made.set_run(run_from_proto(Run(run_id=5)))
    return made


def nodes(grid: GuardedGrid, *questions: str) -> list[int]:
    return [reply.metadata.src_node_id for reply in grid.pull_messages(questions)]


@pytest.mark.guarantee("a reply that never arrives in full delays no other node's reply.")
def test_a_reply_that_stops_in_the_middle_holds_up_nobody(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11, comes=False)
    late = superlink.late
    superlink.reply("question-2", 12)
    assert nodes(grid, "question-1", "question-2") == [12]
    assert nodes(grid, "question-1") == []
    superlink.objects |= late
    assert nodes(grid, "question-1") == [11]
    assert len(superlink.confirmed) == 2


def test_two_callers_do_not_take_each_others_replies(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11, comes=False)
    late = superlink.late
    assert nodes(grid, "question-1") == []
    superlink.reply("question-2", 12)
    assert nodes(grid, "question-2") == [12]
    superlink.objects |= late
    assert nodes(grid, "question-1") == [11]


def test_what_nobody_asks_for_any_more_is_forgotten(
    superlink: Superlink, grid: GuardedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    superlink.reply("question-1", 11, comes=False)
    assert nodes(grid, "question-1") == []
    monkeypatch.setattr(flower, "FORGOTTEN_AFTER_S", 0.0)
    assert nodes(grid, "question-2") == []
    assert grid._arriving == {}


def test_a_reply_is_from_whom_the_superlink_says_not_from_whom_it_says_itself(
    superlink: Superlink, grid: GuardedGrid
) -> None:
    superlink.reply("question-1", 11, claims=12)
    assert nodes(grid, "question-1") == [11]


def test_bytes_that_are_no_message_end_no_round(superlink: Superlink, grid: GuardedGrid) -> None:
    superlink.reply("question-1", 11)
    superlink.objects = dict.fromkeys(superlink.objects, b"Message \x00nonsense")
    superlink.reply("question-2", 12)
    assert nodes(grid, "question-1", "question-2") == [12]
