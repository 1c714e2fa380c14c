"""Answers the requests of Flower's Fleet API that are about messages, from the mailbox, in Flower's own protobufs.

| call | answer |
|---|---|
| pull-messages | one question for the node, with the tree of its objects |
| pull-object | one object of a question |
| confirm-message-received | nothing: the question is safe at the node |
| push-messages | which objects of the reply are still to come |
| push-object | that the object is kept |

Each request was read and written anew before it comes here: what it names is the node's own.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    Message,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)

from server.mailbox.mailbox import Mailbox
from server.mailbox.signatures import is_signed
from server.run_store.values import Node

PULLED_BYTES = 64 * 2**20


class NotSignedError(Exception):
    """A request that the node's key has not signed, or not lately."""


class FleetMessages:
    """The calls about messages.

    Args:
        mailbox: holds them.
        now: the time.
    """

    def __init__(self, mailbox: Mailbox, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._mailbox, self._now, self._pulled = mailbox, now, PulledObjects()
        self._calls: dict[type, Callable[[int, Any], Any]] = {
            PullMessagesRequest: self._pull_messages,
            PullObjectRequest: self._pull_object,
            ConfirmMessageReceivedRequest: self._confirm,
            PushMessagesRequest: self._push_messages,
            PushObjectRequest: self._push_object,
        }

    def knows(self, request: object) -> bool:
        """Return whether this is a request about messages."""
        return type(request) in self._calls

    def answer(self, node: Node, headers: Mapping[str, str], request: object) -> bytes:
        """Return Flower's answer to a node's request.

        Guarantee: no request about messages is answered that the node's own key has not signed within five minutes.

        Raises:
            NotSignedError: the headers do not bear the node's signature.
            NotWantedError: nobody waits for this reply.
            sqlite3.Error: the mailbox cannot be read or written now.
        """
        if not is_signed(headers, node.public_key, now=self._now()):
            raise NotSignedError
        answer = self._calls[type(request)](node.node_id, request)
        return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())

    def _pull_messages(self, node_id: int, _asked: PullMessagesRequest) -> PullMessagesResponse:
        question = self._mailbox.hand_out(node_id, now=self._now().timestamp())
        if question is None:
            return PullMessagesResponse()
        message, tree = Message.FromString(question[0]), ObjectTree.FromString(question[1])
        return PullMessagesResponse(messages_list=[message], message_object_trees=[tree])

    def _pull_object(self, _node_id: int, asked: PullObjectRequest) -> bytes:
        answer = self._pulled.find(asked.object_id)
        if answer is not None:
            return answer
        content = self._mailbox.question_object(asked.object_id)
        if content is None:
            return bytes(PullObjectResponse().SerializeToString())
        response = PullObjectResponse(object_found=True, object_available=True, object_content=content)
        self._pulled.keep(asked.object_id, answer := bytes(response.SerializeToString()))
        return answer

    def _confirm(self, node_id: int, asked: ConfirmMessageReceivedRequest) -> ConfirmMessageReceivedResponse:
        self._mailbox.confirm(node_id, asked.message_object_id)
        return ConfirmMessageReceivedResponse()

    def _push_messages(self, node_id: int, asked: PushMessagesRequest) -> PushMessagesResponse:
        message = asked.messages_list[0]
        question, reply = message.metadata.reply_to_message_id, message.metadata.message_id
        missing = self._mailbox.announce(
            node_id,
            question,
            reply,
            message.SerializeToString(),
            ids_of(asked.message_object_trees[0]),
            now=self._now().timestamp(),
        )
        # the question's id: a node has one reply under way to each
        return PushMessagesResponse(results={reply: 0}, objects_to_push=missing, session_id=question)

    def _push_object(self, node_id: int, asked: PushObjectRequest) -> PushObjectResponse:
        stored = self._mailbox.put(
            node_id, asked.session_id, asked.object_id, asked.object_content, now=self._now().timestamp()
        )
        return PushObjectResponse(stored=stored)


class PulledObjects:
    """Keeps what one node pulled for the next: all nodes of a round pull the same adapter.

    Flower names an object by the hash of its content: it is the same for every node that may have it.

    Args:
        most_bytes: of all together.
    """

    def __init__(self, most_bytes: int = PULLED_BYTES) -> None:
        self._free = most_bytes
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def find(self, object_id: str) -> bytes | None:
        """Return the answer to whoever pulled an object before, unless others have taken its room."""
        if object_id in self._answers:
            self._answers.move_to_end(object_id)
        return self._answers.get(object_id)

    def keep(self, object_id: str, answer: bytes) -> None:
        """Keep an answer, and forget those that were asked for longest ago."""
        self._answers[object_id] = answer
        self._free -= len(answer)
        while self._free < 0:
            self._free += len(self._answers.popitem(last=False)[1])


def ids_of(tree: ObjectTree) -> list[str]:
    """Return the ids of all objects in a tree, each once."""
    ids, waiting = dict[str, None](), [tree]
    while waiting:
        part = waiting.pop()
        ids[part.object_id] = None
        waiting += part.children
    return list(ids)
