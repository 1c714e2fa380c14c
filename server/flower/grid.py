"""Flower's Grid for a run that this process drives, as Flower's own ServerApp process would.

Every internal name of Flower that is used here is held by one contract test.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import httpx
from flwr.app import Message
from flwr.app.metadata import Metadata
from flwr.common.constant import SubStatus
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
from server.flower.superlink import HOST
from server.settings import Home
from server.wake_pipe import pipe_of, tell
from shared.errors import RunError

log = logging.getLogger(__name__)
HEARTBEAT_EVERY_S = 10.0
PATIENCE_S = 60.0
FORGOTTEN_AFTER_S = 60.0


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
    """

    def __init__(self, address: str, token: str, home: Home) -> None:
        super().__init__(address, insecure=True, token=token)
        self._home = home
        self._arriving: dict[str, Arriving] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store messages, and wake the nodes that wait for them at the gateway."""
        stored = list(messages)
        message_ids = super().push_messages(stored)
        tell(pipe_of(self._home.running), [message.metadata.dst_node_id for message in stored])
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to these messages that have arrived in full, one at a time.

        Guarantee: a reply that never arrives in full delays no other node's reply.
        """
        asked, now = set(message_ids), time.monotonic()
        self._note_announced(asked - self._arriving.keys(), now)
        for question in asked & self._arriving.keys():
            reply = self._arriving[question]
            reply.asked_at = now
            if self._pull_missing(reply):
                del self._arriving[question]
                yield from self._received(reply)
        self._arriving = {
            question: reply for question, reply in self._arriving.items() if now - reply.asked_at < FORGOTTEN_AFTER_S
        }

    def _note_announced(self, message_ids: set[str], now: float) -> None:
        if not message_ids:
            return
        response = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(message_ids)))
        for message, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            metadata = message_from_proto(message).metadata
            ids = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
            self._arriving[metadata.reply_to_message_id] = Arriving(metadata, ids, {}, now)

    def _pull_missing(self, reply: Arriving) -> bool:
        """Pull the parts that have not come yet; returns whether the reply is complete."""
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, self.run.run_id)
        while reply.missing:
            try:
                reply.objects[reply.missing[-1]] = pull(reply.missing[-1])
            except (ObjectUnavailableError, ObjectPullError):
                return False  # its question stays open until whoever asked gives up
            reply.missing.pop()
        return True

    def _received(self, reply: Arriving) -> Iterator[Message]:
        message_id = reply.metadata.message_id
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=message_id)
        )
        try:
            message = inflate_object_from_contents(message_id, reply.objects)
        except Exception as error:  # a node's bytes may be anything, and end no round
            log.warning("A reply of node %d cannot be read: %s", reply.metadata.src_node_id, type(error).__name__)
            return
        if isinstance(message, Message):
            # what the SuperLink has checked, not what the bytes say of themselves
            vars(message.metadata).update(vars(reply.metadata))
            yield message

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=self._addr,
            insecure=True,
            root_certificates=None,
            interceptors=[*interceptors(self._home, "flwr-serverapp"), RuntimeTokenHttpInterceptor(token=self._token)],
            retry_invoker=self._retry_invoker,
        )


@contextmanager
def drive_run(home: Home) -> Iterator[GuardedGrid]:
    """Start a new Flower run and yield the Grid through which this process drives it.

    Raises:
        RunError: Flower does not hand out the run, or forgets it.
    """
    control = Control(home)
    run_id = control.start_run()
    address = f"{HOST}:{home.settings().superlink_port}"
    grid = GuardedGrid(address, _claim(home, address, run_id), home)
    # a server that is gone for longer is a reason to start again from the last checkpoint
    grid._retry_invoker.max_time = PATIENCE_S
    done = threading.Event()
    sub_status, details = SubStatus.FAILED, "ended early"
    try:
        task = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = context_from_proto(task.context).node_id
        grid.set_run(run_from_proto(task.run))
        threading.Thread(target=_send_heartbeats, args=(grid, done), daemon=True).start()
        yield grid
        sub_status, details = SubStatus.COMPLETED, ""
    finally:
        done.set()
        grid._retry_invoker.max_tries = 1
        with suppress(httpx.HTTPError):  # Flower ends a run by itself when its heartbeats stop
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
                raise RunError("Expected Flower to hand out the run that was started, got nothing.")
            if response.task.run_id == run_id:
                return cast(str, response.token)
    finally:
        client.close()


def _send_heartbeats(grid: GuardedGrid, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_EVERY_S):
        try:
            grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.HTTPError:
            continue  # the round notices by itself
