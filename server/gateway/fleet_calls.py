"""Know the nine calls that a node's link makes, and let no request pass as it came.

Each request is read, what it names is compared with what the gateway knows of the node, and what goes on to the
SuperLink or the mailbox is written anew from that. So a field that is not named here never reaches them.

| call | may name |
|---|---|
| activate-node | the key of the certificate |
| deactivate-node, send-node-heartbeat, pull-messages | the node itself |
| pull-object | an object of a question that the node was handed, and its run |
| confirm-message-received | a question that the node was handed, and its run |
| get-run | a run of which the node was handed a question |
| push-messages | one answer to such a question, always the same, of few objects, under ids that are nobody else's |
| push-object | an object that the SuperLink still wants for such an answer: its own content, and not too large |

Guarantee: what reaches the SuperLink or the mailbox names the certificate's node, and messages, runs and objects of its
own alone.
Guarantee: a question has one answer: announced once more it is the same, so announcements fill no database.
"""

import hashlib
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.proto.recorddict_pb2 import RecordDict
from flwr.proto.run_pb2 import GetRunRequest

from server.flower.reply_size import MOST_OBJECTS
from server.gateway.handed_out import PER_NODE, HandedMessage, HandedOut
from server.run_store.values import Node

FLEET_API = "/v1/fleet/"
SMALL_CALL_BYTES = 16 * 2**10
"""Largest request but for an object; the link's have a few hundred bytes."""
BESIDE_OBJECT_BYTES = 2**10
OBJECT_ID = re.compile(r"[0-9a-f]{64}")
NO_RUN_TIME_S = 0.0
"""What the SuperLink is told of the time training took."""
ANSWERS_KEPT, ROOTS_KEPT = 8, 10_000
NOT_READABLE, NOT_THIS_NODE, NOT_ITS_OWN, NO_SUCH_CALL, TOO_LARGE, AGAIN = 400, 401, 403, 404, 413, 425


class CallRefused(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is not forwarded.

    Args:
        status: for the node's link, which drops an answer for 400, 403 and 413, and tries again after 401 and 425.
        reason: for the log; one of a few, so that a node cannot make many.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An answer that a node has announced, and whose objects the SuperLink still wants."""

    session_id: str
    run_id: int
    wanted: frozenset[str]


@dataclass(frozen=True)
class Call:
    """A request as it goes on."""

    path: str
    request: Any
    """Flower's message, made here."""

    @property
    def body(self) -> bytes:
        """Return the bytes to forward."""
        return bytes(self.request.SerializeToString())

    @property
    def answer_is_read(self) -> bool:
        """Return whether the SuperLink's answer must be noted before the node gets it."""
        return isinstance(self.request, (PullMessagesRequest, PushMessagesRequest))

    @property
    def leaves(self) -> bool:
        """Return whether the node says that it is leaving."""
        return isinstance(self.request, DeactivateNodeRequest)


class FleetCalls:
    """Reads requests, and remembers what their answers allow the node next.

    Args:
        handed_out: the questions of every node.
        largest_object: bytes that one object of an answer may have now.
    """

    def __init__(self, handed_out: HandedOut, largest_object: Callable[[], int]) -> None:
        self._handed_out, self._largest_object = handed_out, largest_object
        self._answers: defaultdict[int, OrderedDict[str, Answer]] = defaultdict(OrderedDict)
        self._roots: OrderedDict[str, int] = OrderedDict()
        self._given: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
        """Of each node, the hash of its answer to each question."""
        self._calls: dict[str, tuple[Any, Callable[[Node, Any], Any]]] = {
            "activate-node": (ActivateNodeRequest, _activate),
            "deactivate-node": (DeactivateNodeRequest, _deactivate),
            "send-node-heartbeat": (SendNodeHeartbeatRequest, _heartbeat),
            "pull-messages": (PullMessagesRequest, _pull_messages),
            "pull-object": (PullObjectRequest, self._pull_object),
            "confirm-message-received": (ConfirmMessageReceivedRequest, self._confirm),
            "get-run": (GetRunRequest, self._get_run),
            "push-messages": (PushMessagesRequest, self._push_messages),
            "push-object": (PushObjectRequest, self._push_object),
        }

    def knows(self, path: str) -> bool:
        """Return whether a link makes this call; the path is compared as it came, undecoded."""
        return path.startswith(FLEET_API) and path.removeprefix(FLEET_API) in self._calls

    def largest_body(self, path: str) -> int:
        """Return the most bytes that this call needs."""
        return self._largest_object() + BESIDE_OBJECT_BYTES if path == f"{FLEET_API}push-object" else SMALL_CALL_BYTES

    def read(self, node: Node, path: str, body: bytes) -> Call:
        """Return the call to forward in place of this one.

        Raises:
            CallRefused: it is no call of a link, or names what is not this node's.
        """
        if not self.knows(path):
            raise CallRefused(NO_SUCH_CALL, "no call that a link makes")
        if len(body) > self.largest_body(path):
            raise CallRefused(TOO_LARGE, "a larger request than the call needs")
        kind, rewrite = self._calls[path.removeprefix(FLEET_API)]
        try:
            asked = kind.FromString(body)
        except Exception:  # protobuf's own, which has no public type in every implementation
            raise CallRefused(NOT_READABLE, "no request that can be read") from None
        return Call(path, rewrite(node, asked))

    def note_answer(self, node: Node, call: Call, answer: bytes) -> None:
        """Take note of the SuperLink's answer to a call before the node gets it."""
        if isinstance(call.request, PullMessagesRequest):
            handed = PullMessagesResponse.FromString(answer)
            for message, tree in zip(handed.messages_list, handed.message_object_trees, strict=True):
                self._handed_out.keep(node.node_id, message.metadata, _ids(tree))
        elif isinstance(call.request, PushMessagesRequest):
            taken, metadata = PushMessagesResponse.FromString(answer), call.request.messages_list[0].metadata
            answers, wanted = self._answers[node.node_id], frozenset(taken.objects_to_push)
            answers[taken.session_id] = Answer(taken.session_id, metadata.run_id, wanted)
            if len(answers) > ANSWERS_KEPT:
                answers.popitem(last=False)

    def _pull_object(self, node: Node, asked: PullObjectRequest) -> PullObjectRequest:
        itself = _itself(node, asked.node.node_id)
        if not self._handed_out.has_object(node.node_id, asked.run_id, asked.object_id):
            raise CallRefused(NOT_ITS_OWN, "an object that it was not handed")
        return PullObjectRequest(node=itself, run_id=asked.run_id, object_id=asked.object_id)

    def _confirm(self, node: Node, asked: ConfirmMessageReceivedRequest) -> ConfirmMessageReceivedRequest:
        itself, question = _itself(node, asked.node.node_id), self._question(node, asked.message_object_id)
        if asked.run_id != question.metadata.run_id:
            raise CallRefused(NOT_ITS_OWN, "a message of another run")
        return ConfirmMessageReceivedRequest(
            node=itself, run_id=asked.run_id, message_object_id=asked.message_object_id
        )

    def _get_run(self, node: Node, asked: GetRunRequest) -> GetRunRequest:
        itself = _itself(node, asked.node.node_id)
        if not self._handed_out.has_run(node.node_id, asked.run_id):
            raise CallRefused(NOT_ITS_OWN, "a run that it was not asked in")
        return GetRunRequest(node=itself, run_id=asked.run_id)

    def _push_messages(self, node: Node, asked: PushMessagesRequest) -> PushMessagesRequest:
        itself = _itself(node, asked.node.node_id)
        if len(asked.messages_list) != 1 or len(asked.message_object_trees) != 1:
            raise CallRefused(NOT_READABLE, "more or less than one message")
        message, tree = asked.messages_list[0], asked.message_object_trees[0]
        if message.metadata.src_node_id != node.node_id:
            # also its own under a number that it had before, which it must drop
            raise CallRefused(NOT_ITS_OWN, "an answer in another node's name")
        if message.content.items or message.HasField("error"):
            raise CallRefused(NOT_READABLE, "a message with content outside its objects")
        metadata, ids = self._answering(node, message.metadata), _ids(tree, most=MOST_OBJECTS)
        if metadata.message_id != tree.object_id:
            raise CallRefused(NOT_READABLE, "a message under another id than its object's")
        if len(set(ids)) < len(ids) or not all(map(OBJECT_ID.fullmatch, ids)):
            raise CallRefused(NOT_READABLE, "an object id that is no hash, or comes twice")
        if any(map(self._handed_out.is_of_a_question, ids)):
            raise CallRefused(NOT_ITS_OWN, "an object of a question as its own")
        announced = _anew(tree)
        self._claim(node, tree.object_id)
        self._give(node, metadata.reply_to_message_id, announced)
        return PushMessagesRequest(
            node=itself,
            messages_list=[Message(metadata=metadata, content=RecordDict())],
            message_object_trees=[announced],
            clientapp_runtime_list=[NO_RUN_TIME_S],
        )

    def _answering(self, node: Node, given: Metadata) -> Metadata:
        """Return the metadata of an answer: the question's own, but for who sends it to whom."""
        question = self._question(node, given.reply_to_message_id).metadata
        if given.run_id != question.run_id or given.dst_node_id != question.src_node_id:
            raise CallRefused(NOT_ITS_OWN, "an answer to another run or node than asked")
        return Metadata(
            run_id=question.run_id,
            message_id=given.message_id,
            src_node_id=node.node_id,
            dst_node_id=question.src_node_id,
            reply_to_message_id=question.message_id,
            group_id=question.group_id,
            ttl=question.ttl,
            message_type=question.message_type,
            created_at=question.created_at,
        )

    def _claim(self, node: Node, root: str) -> None:
        """Take note of who sends a message of this id; a second sender would end the first one's."""
        if self._roots.setdefault(root, node.node_id) != node.node_id:
            raise CallRefused(NOT_ITS_OWN, "another node's message as its own")
        self._roots.move_to_end(root)
        if len(self._roots) > ROOTS_KEPT:
            self._roots.popitem(last=False)

    def _give(self, node: Node, question: str, answer: ObjectTree) -> None:
        """Take note of a node's answer to a question; another one would be stored beside it, and so on."""
        given, digest = self._given[node.node_id], hashlib.sha256(answer.SerializeToString(deterministic=True)).digest()
        if given.setdefault(question, digest) != digest:
            raise CallRefused(NOT_ITS_OWN, "another answer to a question that it has answered")
        if len(given) > PER_NODE:
            known = {name: given[name] for name in given if self._handed_out.question(node.node_id, name) is not None}
            self._given[node.node_id] = known

    def _push_object(self, node: Node, asked: PushObjectRequest) -> PushObjectRequest:
        itself = _itself(node, asked.node.node_id)
        answer = self._answers[node.node_id].get(asked.session_id)
        if answer is None:
            # a gateway that was started in between does not know it; announced again, it does
            raise CallRefused(AGAIN, "an object of an answer that was not announced")
        if asked.run_id != answer.run_id or asked.object_id not in answer.wanted:
            raise CallRefused(NOT_ITS_OWN, "an object that nobody wants of it")
        if len(asked.object_content) > self._largest_object():
            raise CallRefused(TOO_LARGE, "a larger object than the study's")
        if hashlib.sha256(asked.object_content).hexdigest() != asked.object_id:
            raise CallRefused(NOT_READABLE, "an object under another id than its hash")
        return PushObjectRequest(
            node=itself,
            run_id=answer.run_id,
            object_id=asked.object_id,
            object_content=asked.object_content,
            session_id=answer.session_id,
        )

    def _question(self, node: Node, message_id: str) -> HandedMessage:
        question = self._handed_out.question(node.node_id, message_id)
        if question is None:
            raise CallRefused(NOT_ITS_OWN, "a message that it was not handed")
        return question


def _activate(node: Node, asked: ActivateNodeRequest) -> ActivateNodeRequest:
    if asked.public_key != node.public_key.encode():
        raise CallRefused(NOT_THIS_NODE, "another key than its certificate's")
    return ActivateNodeRequest(public_key=asked.public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)


def _deactivate(node: Node, asked: DeactivateNodeRequest) -> DeactivateNodeRequest:
    return DeactivateNodeRequest(node_id=_itself(node, asked.node_id).node_id)


def _heartbeat(node: Node, asked: SendNodeHeartbeatRequest) -> SendNodeHeartbeatRequest:
    itself = _itself(node, asked.node.node_id)
    return SendNodeHeartbeatRequest(node=itself, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)


def _pull_messages(node: Node, asked: PullMessagesRequest) -> PullMessagesRequest:
    if asked.message_ids:
        raise CallRefused(NOT_ITS_OWN, "a choice of messages")
    return PullMessagesRequest(node=_itself(node, asked.node.node_id))


def _itself(node: Node, number: int) -> FlowerNode:
    if not node.node_id or number != node.node_id:
        raise CallRefused(NOT_THIS_NODE, "another node's number")
    return FlowerNode(node_id=node.node_id)


def _ids(tree: ObjectTree, *, most: int | None = None) -> list[str]:
    """Return the ids in a tree of objects; as soon as there are too many, it is not looked at any further."""
    ids, waiting = list[str](), [tree]
    while waiting:
        part = waiting.pop()
        ids.append(part.object_id)
        waiting += part.children
        if most is not None and len(ids) + len(waiting) > most:
            raise CallRefused(TOO_LARGE, f"more than {most} objects in one message")
    return ids


def _anew(tree: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=tree.object_id, children=[_anew(child) for child in tree.children])
