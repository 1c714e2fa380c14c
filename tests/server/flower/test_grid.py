"""Our Grid: replies come through the mailbox, and the SuperLink says who is there."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto, run_from_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import GetNodesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute

from server.flower import grid as flower
from server.flower.grid import GuardedGrid
from server.flower.patience import FlowerAwayError, Patience
from server.flower.reply_size import (
    BESIDE_UPDATE_BYTES,
    MOST_OBJECTS,
    WITHOUT_RUN_BYTES,
    largest_object_bytes,
    publish_update_bytes,
    withdraw_update_bytes,
)
from server.mailbox.mailbox import Mailbox
from server.rounds.round import Reason
from server.rounds.update_filter import Rejected, Unanswered, inspect
from server.settings import Home
from shared.errors import RunError
from shared.protocol.messages import TrainTask
from tests.support.fleet_in_memory import question_of

LARGEST_OBJECT, RUN = 1000, 5
TASK = TrainTask("s" * 64, "r-1", 1, np.zeros(3, np.float32))


class Superlink:
    """Says which nodes are present."""

    def __init__(self, *present: int) -> None:
        self.present, self.asked = list(present), 0

    def GetNodes(self, _request: Any) -> GetNodesResponse:  # noqa: N802 - Flower's name
        self.asked += 1
        return GetNodesResponse(nodes=[NodeInfo(node_id=node) for node in self.present])

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Scene:
    """A run's grid, and its nodes at the mailbox."""

    grid: GuardedGrid
    superlink: Superlink
    mailbox: Mailbox

    def ask(self, *nodes: int) -> list[str]:
        return self.grid.push_messages([question_of(RecordDict({"q": ConfigRecord({"q": 1})}), n, RUN) for n in nodes])

    def reply(self, question: str, node: int, **given: Any) -> None:
        self.put(question, node, self.announce(question, node, **given))

    def announce(
        self, question: str, node: int, *, claims: int | None = None, records: int = 1, size: int = 1
    ) -> dict[str, bytes]:
        """Say that a reply comes; `claims` is who the reply's own bytes say it is from. Returns its objects."""
        asked = question_of(RecordDict(), node, RUN)
        asked.metadata.__dict__["_message_id"] = question
        content = RecordDict({f"a{i}": ConfigRecord({"node": node + i, "x": bytes(size)}) for i in range(records)})
        written = Message(content, reply_to=asked)
        written.metadata.__dict__["_src_node_id"] = node if claims is None else claims
        message_id = written.object_id
        written.metadata.__dict__["_message_id"] = message_id
        with no_object_id_recompute():
            objects = {name: part.deflate() for name, part in get_all_nested_objects(written).items()}
        written.metadata.__dict__["_src_node_id"] = node
        message = message_to_proto(remove_content_from_message(written)).SerializeToString()
        self.mailbox.announce(node, question, message_id, message, list(objects), now=time.time())
        return objects

    def put(self, question: str, node: int, objects: dict[str, bytes]) -> None:
        for name, content in objects.items():
            assert self.mailbox.put(node, question, name, content, now=time.time())

    def nodes(self, *questions: str) -> list[int]:
        """The senders of replies that can be read."""
        return [reply.metadata.src_node_id for reply in self.grid.pull_messages(questions) if reply.has_content()]

    def verdicts(self, *questions: str) -> dict[int, Any]:
        """What the update filter says of replies that cannot be used, by sender."""
        replies = [reply for reply in self.grid.pull_messages(questions) if not reply.has_content()]
        return {reply.metadata.src_node_id: inspect(reply, TASK, largest_norm=1.0) for reply in replies}

    def never_answered(self, *questions: str) -> dict[str, Any]:
        self.grid._looked.clear()
        replies = list(self.grid.pull_messages(questions))
        return {reply.metadata.reply_to_message_id: inspect(reply, TASK, largest_norm=1.0) for reply in replies}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    home, superlink = Home(tmp_path), Superlink(11, 12, 13)
    made = GuardedGrid("127.0.0.1:1", "token", home, largest_object_bytes=LARGEST_OBJECT)
    vars(made)["_client"] = superlink
    made.set_run(run_from_proto(Run(run_id=RUN)))
    mailbox = Mailbox(home.mailbox)
    yield Scene(made, superlink, mailbox)
    mailbox.close()
    made.close()


@pytest.mark.guarantee("a reply that never arrives in full delays no other node's reply.")
def test_a_reply_that_stops_in_the_middle_holds_up_nobody(scene: Scene) -> None:
    first, second = scene.ask(11, 12)
    late = scene.announce(first, 11)
    scene.reply(second, 12)
    assert scene.nodes(first, second) == [12]
    assert scene.nodes(first) == []
    scene.put(first, 11, late)
    assert scene.nodes(first) == [11]
    assert scene.nodes(first, second) == [], "each is read once"


def test_two_callers_do_not_take_each_others_replies(scene: Scene) -> None:
    first, second = scene.ask(11, 12)
    scene.reply(first, 11)
    assert scene.nodes(second) == []
    scene.reply(second, 12)
    assert scene.nodes(second) == [12]
    assert scene.nodes(first) == [11]


def test_a_reply_is_from_whom_the_gateway_says_not_from_whom_it_says_itself(scene: Scene) -> None:
    (question,) = scene.ask(11)
    scene.reply(question, 11, claims=12)
    assert scene.nodes(question) == [11]


def test_bytes_that_are_no_message_count_as_their_nodes_failure(scene: Scene) -> None:
    first, second = scene.ask(11, 12)
    scene.put(first, 11, dict.fromkeys(scene.announce(first, 11), b"Message \x00nonsense"))
    scene.reply(second, 12)
    assert scene.verdicts(first) == {11: Rejected(Reason.MALFORMED)}
    assert scene.nodes(second) == [12]


@pytest.mark.guarantee("a reply is weighed before it is read: by the number of its objects, and by the size of each.")
def test_a_reply_of_too_many_objects_or_of_a_large_one_is_not_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, real = list[str](), Mailbox.contents

    def noted(mailbox: Mailbox, question: str) -> dict[str, bytes]:
        read.append(question)
        return real(mailbox, question)

    monkeypatch.setattr(Mailbox, "contents", noted)
    many, large, good = scene.ask(11, 12, 13)
    scene.reply(many, 11, records=MOST_OBJECTS - 1)
    scene.reply(large, 12, size=LARGEST_OBJECT + 2 * BESIDE_UPDATE_BYTES)
    assert scene.verdicts(many, large) == dict.fromkeys((11, 12), Rejected(Reason.OVERSIZED))
    scene.reply(good, 13, records=MOST_OBJECTS - 2)
    assert scene.nodes(good) == [13] and read == [good]


def test_whoever_is_not_there_any_more_and_has_not_answered_is_waited_for_no_longer(scene: Scene) -> None:
    answered, left, there, expired = scene.ask(11, 12, 13, 13)
    scene.reply(answered, 11)
    scene.mailbox.drop([expired])
    scene.superlink.present = [13]
    questions = (answered, left, there, expired)
    assert scene.nodes(answered) == [11], "it answered before it left"
    assert scene.never_answered(*questions[1:]) == dict.fromkeys((left, expired), Unanswered())
    assert scene.mailbox.hand_out(12, now=time.time()) is None, "if it is back, it is asked anew"
    scene.reply(there, 13)
    assert scene.nodes(there) == [13]


def test_who_is_there_is_asked_now_and_then_however_often_replies_are(scene: Scene) -> None:
    (question,) = scene.ask(11)
    for _ in range(50):
        assert scene.nodes(question) == []
    assert scene.superlink.asked == 1


def test_whoever_asks_often_keeps_no_other_caller_from_hearing_who_left(scene: Scene) -> None:
    offer, task = scene.ask(11, 12)
    assert scene.nodes(offer) == []
    scene.superlink.present = [11]
    (gone,) = scene.grid.pull_messages([task])
    assert gone.metadata.reply_to_message_id == task


def test_whoever_waits_looks_at_the_time_between_slow_replies(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "PULL_FOR_S", 0.02)
    real = Mailbox.contents

    def slow(mailbox: Mailbox, question: str) -> dict[str, bytes]:
        time.sleep(0.03)
        return real(mailbox, question)

    monkeypatch.setattr(Mailbox, "contents", slow)
    questions = scene.ask(11, 12, 13)
    for question, node in zip(questions, (11, 12, 13), strict=True):
        scene.reply(question, node)
    pulled = [scene.nodes(*questions) for _ in questions]
    assert sorted(node for slice_ in pulled for node in slice_) == [11, 12, 13] and max(map(len, pulled)) == 1


def test_a_run_begins_and_ends_with_an_empty_mailbox(scene: Scene) -> None:
    scene.ask(11)
    scene.grid.set_run(run_from_proto(Run(run_id=RUN + 1)))
    scene.grid.begin()
    assert scene.mailbox.open_questions(RUN, now=0.0) == {}
    scene.grid.set_run(run_from_proto(Run(run_id=RUN)))
    scene.ask(12)
    scene.grid.close()
    assert scene.mailbox.open_questions(RUN, now=0.0) == {}


def over(answer: Callable[[httpx.Request], httpx.Response], folder: Path) -> GuardedGrid:
    """A grid whose every request is answered here."""
    home = Home(folder)
    home.config.write_text('hosts = ["localhost"]\n')
    grid = GuardedGrid("127.0.0.1:1", "token", home, largest_object_bytes=LARGEST_OBJECT)
    grid.set_run(run_from_proto(Run(run_id=RUN)))
    grid._connect()
    grid._runtime_client._client._transport = httpx.MockTransport(answer)
    return grid


@pytest.mark.guarantee("an error of Flower's never ends the process of a run with a traceback.")
@pytest.mark.parametrize("call", ["get_node_ids", "pull_messages"])
@pytest.mark.parametrize("status", [401, 403, 500, 200])
def test_whatever_flower_answers_is_an_error_that_can_be_read(call: str, status: int, tmp_path: Path) -> None:
    # 401 would make Flower's own repeater interrupt this process; the bytes of the 200 are no answer
    grid = over(lambda _request: httpx.Response(status, content=b"\xff\xff"), tmp_path)
    grid._retry_invoker.longest_s = 0.0
    with pytest.raises(RunError, match="Expected Flower"):
        if call == "get_node_ids":
            grid.get_node_ids()
        else:
            list(grid.pull_messages(["question"]))


@pytest.mark.guarantee("an error of Flower's never ends the process of a run with a traceback.")
@pytest.mark.parametrize("call", ["begin", "ask", "replies", "open_questions"])
def test_so_is_whatever_the_mailbox_does(scene: Scene, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: object, **_more: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Mailbox, call, full)
    with pytest.raises(FlowerAwayError, match="database or disk is full"):
        if call == "begin":
            scene.grid.begin()
        elif call == "ask":
            scene.ask(11)
        else:
            list(scene.grid.pull_messages(["question"]))


def test_a_server_that_is_back_in_time_was_never_away() -> None:
    now, answers = [0.0], iter([503, 500, 200])

    def wait(seconds: float) -> None:
        now[0] += seconds

    def call() -> int:
        response = httpx.Response(next(answers), request=httpx.Request("POST", "http://flower"))
        return response.raise_for_status().status_code

    assert Patience(60.0, clock=lambda: now[0], wait=wait).invoke(call) == 200 and now[0] < 1.0
    answers = iter([503] * 1000)
    with pytest.raises(FlowerAwayError, match="503"):
        Patience(60.0, clock=lambda: now[0], wait=wait).invoke(call)
    assert 60.0 <= now[0] < 62.0


def test_the_largest_object_follows_from_the_run_that_is_driven(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.flower.mkdir()
    assert largest_object_bytes(home) == WITHOUT_RUN_BYTES
    publish_update_bytes(home, 10**6)
    assert 10**6 < largest_object_bytes(home) < 1.01 * 10**6
    withdraw_update_bytes(home)
    assert largest_object_bytes(home) == WITHOUT_RUN_BYTES
