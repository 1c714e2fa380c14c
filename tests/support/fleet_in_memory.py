"""A node's link, the gateway's rules and a SuperLink that remembers what it saw, without a network between them."""

from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    DeactivateNodeResponse,
    PullMessagesResponse,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse, PushObjectResponse
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.task_identity import TaskIdentity

from client.link.fleet import Fleet
from server.certificate_authority import public_pem
from server.gateway.fleet_calls import FLEET_API, Call, FleetCalls
from server.run_store.values import Node

PATHS = {
    "ActivateNode": "activate-node",
    "DeactivateNode": "deactivate-node",
    "SendNodeHeartbeat": "send-node-heartbeat",
    "PullMessages": "pull-messages",
    "PullObject": "pull-object",
    "ConfirmMessageReceived": "confirm-message-received",
    "GetRun": "get-run",
    "PushMessages": "push-messages",
    "PushObject": "push-object",
}
SUPERLINK = 1


@dataclass(frozen=True)
class Forwarded:
    """A request that a link made, and what became of it."""

    node: Node
    path: str
    asked: Any
    body: bytes


@dataclass
class Superlink:
    """One question for every node, each of its own run."""

    questions: dict[int, Message] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def ask(self, node_id: int, run_id: int) -> Message:
        content = RecordDict({"task": ConfigRecord({"node": str(node_id)}), "echo": ConfigRecord({"head": "0"})})
        question = question_of(content, node_id, run_id)
        question.metadata.__dict__["_message_id"] = ""
        parts = {name: part.deflate() for name, part in get_all_nested_objects(question).items()}
        question.metadata.__dict__["_message_id"] = question.object_id
        self.objects |= parts
        self.questions[node_id] = question
        return question

    def answer(self, node: Node, name: str, request: Any) -> Any:
        if name == "ActivateNode":
            return ActivateNodeResponse(node_id=node.node_id)
        if name == "PullMessages":
            question = self.questions[node.node_id]
            with no_object_id_recompute():
                tree = get_object_tree(question)
            tree.object_id = question.metadata.message_id
            message = message_to_proto(remove_content_from_message(question))
            # the database keeps no ids of tasks
            message.metadata.ClearField("src_task_id")
            return PullMessagesResponse(messages_list=[message], message_object_trees=[tree])
        if name == "PullObject":
            content = self.objects[request.object_id]
            return PullObjectResponse(object_found=True, object_available=True, object_content=content)
        if name == "PushMessages":
            tree = request.message_object_trees[0]
            wanted = [tree.object_id, tree.children[0].object_id, tree.children[0].children[0].object_id]
            return PushMessagesResponse(objects_to_push=wanted, session_id=f"session-of-{node.node_id}")
        others = {
            "DeactivateNode": DeactivateNodeResponse(),
            "SendNodeHeartbeat": SendNodeHeartbeatResponse(success=True),
            "ConfirmMessageReceived": ConfirmMessageReceivedResponse(),
            "GetRun": GetRunResponse(),
            "PushObject": PushObjectResponse(stored=True),
        }
        return others[name]


class Wire:
    """Stands for Flower's HTTP client in a link: every call goes through the gateway's rules."""

    def __init__(self, node: Node, calls: FleetCalls, superlink: Superlink) -> None:
        self.node, self._calls, self._superlink = node, calls, superlink
        self.forwarded: list[Forwarded] = []

    def __getattr__(self, name: str) -> Any:
        def call(asked: Any) -> Any:
            path = FLEET_API + PATHS[name]
            forwarded = self._calls.read(self.node, path, asked.SerializeToString())
            self.forwarded.append(Forwarded(self.node, path, asked, forwarded.body))
            answer = self._superlink.answer(self.node, name, forwarded.request)
            if forwarded.answer_is_read:
                self._calls.note_answer(self.node, forwarded, answer.SerializeToString())
            return answer

        return call

    def close(self) -> None:
        """Nothing is open."""


def question_of(content: RecordDict, node_id: int, run_id: int) -> Message:
    """A message as the process of a run makes it."""
    identity = TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 3, run_id, SUPERLINK
    question = Message(content, node_id, "train", group_id=f"r-{run_id}/1", ttl=60.0)
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = identity
    return question


class AnyCalls:
    """Lets every request below `/v1/fleet/` through as it is, for what a gateway does before it reads one."""

    def knows(self, path: str) -> bool:
        return path.startswith(FLEET_API)

    def largest_body(self, path: str) -> int:
        return 2**30

    def read(self, node: Node, path: str, body: bytes) -> Call:
        return AnyCall(path, body)

    def note_answer(self, node: Node, call: Call, answer: bytes) -> None:
        """Nothing is read."""


class AnyCall(Call):
    """Bytes that nobody has read."""

    @property
    def body(self) -> bytes:
        return bytes(self.request)


def node_named(name: str, number: int = 7) -> Node:
    return Node(name, number, "", "2026-01-01", "2026-01-01", None)


def make_node(name: str, number: int) -> tuple[Node, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    return Node(name, number, public_pem(key.public_key()), "2026-01-01", "2026-01-01", None), key


def whole_life(node: Node, key: ec.EllipticCurvePrivateKey, calls: FleetCalls, superlink: Superlink) -> list[Forwarded]:
    """Let a node's real link make each of its calls once, answering one question; returns what was forwarded."""
    wire, fleet = Wire(node, calls, superlink), Fleet("localhost:1", key, None)
    fleet._client.close()
    vars(fleet)["_client"] = wire
    fleet.activate(0)
    assert fleet.heartbeat()
    received = fleet.receive()
    assert received is not None
    fleet.confirm(received)
    fleet.reply(received, RecordDict({"reply": ConfigRecord({"update": bytes(200)})}))
    wire.GetRun(GetRunRequest(node=fleet._node, run_id=received.run_id))
    fleet.close(deactivate=True)
    return wire.forwarded
