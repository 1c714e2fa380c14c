"""A node's real link, the real gateway and the mailbox, without a network between them."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.task_identity import TaskIdentity
from starlette.applications import Starlette

from client.link.fleet import CUT, Fleet, NotAccepted, Received, Refused
from server.flower.grid import _as_question, _inflated
from server.gateway.fleet_calls import FleetCalls
from server.gateway.handed_out import HandedOut
from server.gateway.proxy import Limits, build_gateway
from server.mailbox.fleet_messages import FleetMessages, PulledObjects
from server.mailbox.mailbox import Mailbox
from server.run_store.values import Node
from tests.support.fleet_in_memory import make_node, question_of

RUN, LARGEST_OBJECT = 50, 5000


class Inside(httpx.BaseTransport):
    """An application that answers without a network."""

    def __init__(self, app: Starlette, portal: BlockingPortal) -> None:
        self._app, self._portal = app, portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        async with (
            self._app.router.lifespan_context(self._app),
            httpx.AsyncClient(transport=httpx.ASGITransport(self._app)) as client,
        ):
            answer = await client.post(request.url, content=request.read(), headers=request.headers)
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


class Scene:
    """Two nodes, their links, and a gateway whose SuperLink answers nothing."""

    def __init__(self, folder: Path, portal: BlockingPortal) -> None:
        self.mailbox, self.now = Mailbox(folder / "mailbox.db"), datetime.now(UTC)
        self.upstream: list[str] = []
        (self.node, key), (self.other, other_key) = make_node("ward-7", 7), make_node("harbour", 9)
        self.shown: Node | None = self.node
        gateway = build_gateway(
            "http://superlink",
            Limits(),
            admit=lambda _request: self.shown,
            calls=FleetCalls(HandedOut(), lambda: LARGEST_OBJECT),
            messages=FleetMessages(self.mailbox, lambda: self.now),
            transport=httpx.MockTransport(self._superlink),
        )
        self.client = httpx.Client(transport=Inside(gateway, portal))
        self.fleet, self.others = (self._link(self.node, key), self._link(self.other, other_key))

    def _superlink(self, request: httpx.Request) -> httpx.Response:
        self.upstream.append(request.url.path)
        return httpx.Response(200, stream=httpx.ByteStream(b""))

    def _link(self, node: Node, key: ec.EllipticCurvePrivateKey) -> Fleet:
        fleet = Fleet("localhost:1", key, None)
        fleet._client._client.close()
        fleet._client._client = self.client
        fleet.node_id = node.node_id
        return fleet

    def ask(self, node: Node, text: str = "train", size: int = 10) -> str:
        content = RecordDict({"task": ConfigRecord({"text": text, "adapter": bytes(size)})})
        contents: dict[str, bytes] = {}
        question = _as_question(question_of(content, node.node_id, RUN), contents)
        self.mailbox.ask([question], contents, now=self.now.timestamp())
        return question.message_id

    def replies(self) -> dict[int, RecordDict]:
        """What every node's whole reply says."""
        found = {}
        for reply in self.mailbox.replies(RUN):
            metadata = message_from_proto(MessageProto.FromString(reply.message)).metadata
            found[metadata.src_node_id] = _inflated(metadata, self.mailbox.contents(reply.question)).content
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    identity = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 7
    with start_blocking_portal() as portal:
        made = Scene(tmp_path, portal)
        yield made
    made.mailbox.close()
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = identity


def received(fleet: Fleet) -> Received:
    message = fleet.receive()
    assert message is not None
    return message


def answer(size: int = 200) -> RecordDict:
    return RecordDict({"reply": ConfigRecord({"update": bytes(size)})})


def test_a_question_and_its_answer_pass_and_the_superlink_sees_neither(scene: Scene) -> None:
    asked = scene.ask(scene.node, "train")
    message = received(scene.fleet)
    assert message.message_id == asked and message.message().content["task"]["text"] == "train"
    assert (message.message().metadata.src_node_id, message.message().metadata.dst_node_id) == (1, 7)
    scene.fleet.confirm(message)
    assert scene.fleet.receive() is None
    scene.fleet.reply(message, answer())
    scene.fleet.reply(message, answer())  # sent again
    assert scene.replies()[7]["reply"]["update"] == bytes(200)
    assert scene.upstream == []
    scene.fleet.heartbeat()
    assert scene.upstream == ["/v1/fleet/send-node-heartbeat"]


def test_an_adapter_is_read_once_however_many_nodes_pull_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for node in (scene.node, scene.other):
        scene.ask(node)
    read, real = list[str](), scene.mailbox.question_object

    def noted(name: str) -> bytes | None:
        read.append(name)
        return real(name)

    monkeypatch.setattr(scene.mailbox, "question_object", noted)
    first = received(scene.fleet)
    scene.shown = scene.other
    second = received(scene.others)
    assert len(first.objects) == len(second.objects) == 3
    assert sorted(read) == sorted({*first.objects, *second.objects}) and len(read) == 4, "the task is the same"


@pytest.mark.guarantee(
    "no request about messages is answered that the node's own key has not signed within five minutes."
)
@pytest.mark.parametrize("whose", ["another node's", "old", "of the future"])
def test_what_the_node_has_not_signed_is_not_answered(scene: Scene, whose: str) -> None:
    scene.ask(scene.node)
    if whose == "another node's":
        # its certificate, and the number that goes with it, but another key's signature
        scene.others.node_id = 7
        fleet = scene.others
    else:
        fleet, scene.now = scene.fleet, scene.now + timedelta(minutes=6 if whose == "old" else -6)
    with pytest.raises(NotAccepted):
        fleet.receive()
    assert scene.mailbox.hand_out(7, now=0.0) is not None, "nothing was handed out"


def test_an_answer_that_nobody_waits_for_is_dropped_by_the_link(scene: Scene) -> None:
    scene.ask(scene.node)
    message = received(scene.fleet)
    scene.mailbox.end()
    with pytest.raises(Refused, match="410"):
        scene.fleet.reply(message, answer())


def test_a_mailbox_that_cannot_be_written_now_keeps_the_link_trying(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene.ask(scene.node)
    message = received(scene.fleet)

    def full(*_given: object, **_more: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for call in ("announce", "put"):
        with monkeypatch.context() as patch, pytest.raises(CUT):
            patch.setattr(scene.mailbox, call, full)
            scene.fleet.reply(message, answer())
    assert scene.replies() == {} and "The mailbox failed: database or disk is full" in caplog.text
    scene.fleet.reply(message, answer())
    assert list(scene.replies()) == [7]


def test_a_gateway_that_was_started_in_between_takes_the_rest(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.ask(scene.node)
    message, put = received(scene.fleet), scene.mailbox.put
    left = iter([True])

    def cut(*given: object, **more: object) -> bool:
        if next(left, False):
            return put(*given, **more)  # type: ignore[arg-type]
        raise sqlite3.OperationalError("killed")

    monkeypatch.setattr(scene.mailbox, "put", cut)
    with pytest.raises(CUT):
        scene.fleet.reply(message, answer())
    monkeypatch.setattr(scene.mailbox, "put", put)
    assert scene.replies() == {}
    scene.fleet.reply(message, answer())
    assert scene.replies()[7]["reply"]["update"] == bytes(200)


def test_pulled_objects_have_bounded_room() -> None:
    kept = PulledObjects(most_bytes=250)
    for name in ("a", "b"):
        kept.keep(name, bytes(100))
    assert kept.find("a") is not None
    kept.keep("c", bytes(100))
    assert kept.find("b") is None, "the one that nobody asked for"
    assert kept.find("a") is not None and kept.find("c") is not None
    kept.keep("large", bytes(900))
    assert kept.find("large") is None
