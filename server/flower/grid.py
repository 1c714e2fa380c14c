"""Flower's Grid for a run that this process drives, as Flower's own ServerApp process would.

Every internal name of Flower that is used here is held by one contract test.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from secrets import token_hex
from typing import Any, cast

import httpx
from flwr.app import Error, Message
from flwr.app.metadata import Metadata
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, message_from_proto, run_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from server.flower.control import Control, call_flower, interceptors
from server.flower.patience import FlowerAwayError, FlowerRefusedError, Patience, flower_failures
from server.flower.reply_size import (
    BESIDE_UPDATE_BYTES,
    MOST_OBJECTS,
    largest_object_bytes,
    publish_update_bytes,
    withdraw_update_bytes,
)
from server.flower.superlink import HOST
from server.rounds.update_filter import Reason
from server.settings import Home
from server.wake_pipe import pipe_of, tell
from shared.errors import RunError
from shared.protocol.flower_records import SALT_BYTES, add_salt

log = logging.getLogger(__name__)
HEARTBEAT_EVERY_S = 10.0
PATIENCE_S = 60.0
FORGOTTEN_AFTER_S = 60.0
PULL_FOR_S = 1.0
"""How long replies are pulled before whoever waits for them looks at the time again."""
PULL_TIMEOUT_S = 10.0
"""Longest wait for a part of one reply; it is asked for again."""
PULL_OBJECT = "/pull-object"


class ReplyTooLarge(Exception):  # noqa: N818 - a reply that is not used, and no failure of ours
    """One object of a reply is larger than a reply of this run can be."""


@dataclass
class Arriving:
    """A reply that the SuperLink has announced."""

    metadata: Metadata
    missing: list[str]
    """Ids of Flower's serialised objects that have not come yet."""
    objects: dict[str, bytes]
    asked_at: float
    """When it was last asked for; monotonic seconds."""


class GuardedGrid(HttpGrid):
    """Flower's Grid, with the secret, and without its long waits.

    Flower announces a reply before its bytes are there, and its own Grid then waits up to two hours for them: one node
    that stops in the middle would hold up everybody. It also believes what the reply's own bytes say of who sent it.

    Args:
        address: of the SuperLink.
        token: of the run's task.
        home: the server's folder, for the secret.
        largest_object_bytes: size of an object that a reply of this run may have; a larger one is not read.
    """

    def __init__(self, address: str, token: str, home: Home, *, largest_object_bytes: int) -> None:
        super().__init__(address, insecure=True, token=token)
        self._home, self._largest_object_bytes = home, largest_object_bytes
        self._retry_invoker: Any = Patience(PATIENCE_S)
        self._arriving: dict[str, Arriving] = {}

    def get_node_ids(self) -> list[int]:
        """Return the numbers of the nodes that are present."""
        with flower_failures("list its nodes"):
            return list(super().get_node_ids())

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Store messages, and wake the nodes that wait for them at the gateway.

        Guarantee: no member knows the hash of anything in a question before it is asked.

        Returns:
            Their ids, with None for each that Flower does not take.
        """
        stored = list(messages)
        for message in stored:
            # a member knows a run's first adapter; what nodes share is one record, and keeps its first salt
            add_salt(message.content, token_hex(SALT_BYTES))
        with flower_failures("take messages"):
            message_ids = list(super().push_messages(stored))
        tell(pipe_of(self._home.running), [message.metadata.dst_node_id for message in stored])
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to these messages that have arrived in full, one at a time, for a second at most.

        A reply that has too many objects, too large ones, or none that can be read comes as an error in its place.

        Guarantee: a reply that never arrives in full delays no other node's reply.
        Guarantee: a reply is weighed before it is read: by the number of its objects, and by the size of each.
        """
        asked, now = set(message_ids), time.monotonic()
        with flower_failures("announce replies"):
            failed = self._note_announced(asked - self._arriving.keys(), now)
        yield from failed
        for question in [question for question in self._arriving if question in asked]:
            reply = self._arriving.pop(question)
            reply.asked_at = now
            if time.monotonic() - now > PULL_FOR_S:
                self._arriving[question] = reply
                continue
            message = self._pulled(reply)
            if message is None:
                # to the end of the line
                self._arriving[question] = reply
            else:
                yield message
        self._arriving = {
            question: reply for question, reply in self._arriving.items() if now - reply.asked_at < FORGOTTEN_AFTER_S
        }

    def _note_announced(self, message_ids: set[str], now: float) -> list[Message]:
        """Take note of new replies; returns an error for each that has too many objects to be pulled."""
        failed: list[Message] = []
        if not message_ids:
            return failed
        response = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(message_ids)))
        for message, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            # its content is in its objects; what else is there may not be readable
            message.ClearField("error")
            message.ClearField("content")
            message.content.SetInParent()
            metadata = message_from_proto(message).metadata
            parts = list(islice(iterate_object_tree(tree), MOST_OBJECTS + 1))
            if len(parts) > MOST_OBJECTS:
                failed.append(_unusable(metadata, Reason.OVERSIZED))
                continue
            ids = list(dict.fromkeys(part.object_id for part in parts))
            self._arriving[metadata.reply_to_message_id] = Arriving(metadata, ids, {}, now)
        return failed

    def _pulled(self, reply: Arriving) -> Message | None:
        """Return a reply, or an error in its place; None while parts of it are missing."""
        try:
            with self._retry_invoker.none():
                self._pull_missing(reply)
            message = _inflated(reply)
        except (ObjectUnavailableError, ObjectPullError, FlowerAwayError):
            return None  # its question stays open until whoever asked gives up
        except ReplyTooLarge:
            message = _unusable(reply.metadata, Reason.OVERSIZED)
        # it frees room, and no more
        with self._retry_invoker.none(), suppress(RunError), flower_failures("drop a reply"):
            request = ConfirmMessageReceivedRequest(
                node=self.node, run_id=self.run.run_id, message_object_id=reply.metadata.message_id
            )
            self._runtime_client.ConfirmMessageReceived(request)
        return message

    def _pull_missing(self, reply: Arriving) -> None:
        """Pull the parts that have not come yet."""
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, self.run.run_id)
        while reply.missing:
            reply.objects[reply.missing[-1]] = pull(reply.missing[-1])
            reply.missing.pop()

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=self._addr,
            insecure=True,
            root_certificates=None,
            interceptors=[*interceptors(self._home, "flwr-serverapp"), RuntimeTokenHttpInterceptor(token=self._token)],
            retry_invoker=self._retry_invoker,
        )
        # an answer's size is known before its body is read, and only here
        self._client._client.event_hooks = {"request": [_limit_wait], "response": [self._weigh]}

    def _weigh(self, response: httpx.Response) -> None:
        if response.request.url.path.endswith(PULL_OBJECT):
            size_bytes = int(response.headers.get("content-length", 0))
            if size_bytes > self._largest_object_bytes + BESIDE_UPDATE_BYTES:
                raise ReplyTooLarge


def _limit_wait(request: httpx.Request) -> None:
    if request.url.path.endswith(PULL_OBJECT):
        request.extensions["timeout"] = httpx.Timeout(PULL_TIMEOUT_S).as_dict()


def _inflated(reply: Arriving) -> Message:
    try:
        message = inflate_object_from_contents(reply.metadata.message_id, reply.objects)
    except Exception as error:  # a node's bytes may be anything, and end no round
        log.warning("A reply of node %d cannot be read: %s", reply.metadata.src_node_id, type(error).__name__)
        return _unusable(reply.metadata, Reason.MALFORMED)
    if not isinstance(message, Message):
        return _unusable(reply.metadata, Reason.MALFORMED)
    # what the SuperLink has checked, not what the bytes say of themselves
    vars(message.metadata).update(vars(reply.metadata))
    return message


def _unusable(metadata: Metadata, reason: Reason) -> Message:
    """Return an error in the place of a reply; the update filter knows the reason."""
    return Message(metadata=metadata, error=Error(ErrorCode.UNKNOWN, reason))  # type: ignore[call-overload, no-any-return]


@contextmanager
def drive_run(home: Home, *, update_bytes: int) -> Iterator[GuardedGrid]:
    """Start a new Flower run and yield the Grid through which this process drives it.

    A server that is gone for longer than a minute is a reason to start again from the last checkpoint.

    Args:
        home: the server's folder.
        update_bytes: size of one packed update; no node sends an object that is much larger.

    Raises:
        RunError: Flower does not hand out the run, or forgets it.
    """
    control = Control(home)
    run_id = control.start_run()
    address = f"{HOST}:{home.settings().superlink_port}"
    publish_update_bytes(home, update_bytes)
    largest = largest_object_bytes(home)
    grid = GuardedGrid(address, _claim(home, address, run_id), home, largest_object_bytes=largest)
    done = threading.Event()
    sub_status, details = SubStatus.FAILED, "ended early"
    try:
        with flower_failures("hand out its run"):
            task = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
            TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
            TaskIdentity.node_id = context_from_proto(task.context).node_id
            grid.set_run(run_from_proto(task.run))
        threading.Thread(target=_send_heartbeats, args=(grid, done), daemon=True).start()
        yield grid
        sub_status, details = SubStatus.COMPLETED, ""
    finally:
        done.set()
        withdraw_update_bytes(home)
        # Flower ends a run by itself when its heartbeats stop
        with grid._retry_invoker.none(), suppress(RunError), flower_failures("end a run"):
            grid._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status, details=details))
        grid.close()
        control.close()


def _claim(home: Home, address: str, run_id: int) -> str:
    """Return the token of our run's task; tasks of runs whose process died are ended on the way."""
    client = RuntimeHttpClient.from_server_address(
        address,
        True,
        None,
        interceptors=[
            *interceptors(home, "SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=home.superexec_secret(), protected_methods={"/flwr.proto.Runtime/AcquireTask"}
            ),
        ],
    )
    try:
        while True:
            response = call_flower(client.AcquireTask, AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if not response.token:
                raise FlowerRefusedError("Expected Flower to hand out the run that was started, got nothing.")
            if response.task.run_id == run_id:
                return cast(str, response.token)
    finally:
        client.close()


def _send_heartbeats(grid: GuardedGrid, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_EVERY_S):
        try:
            with flower_failures("take a heartbeat"):
                grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except RunError:
            continue  # the round notices by itself
