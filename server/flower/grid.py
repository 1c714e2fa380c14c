"""Flower's Grid for a run that this process drives, as Flower's own ServerApp process would.

Every internal name of Flower that is used here is held by one contract test.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any, cast

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, message_from_proto, message_to_proto, run_from_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
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
from server.mailbox.mailbox import KeptQuestion, KeptReply, Mailbox
from server.rounds.round import Reason
from server.settings import Home
from server.wake_pipe import pipe_of, tell
from shared.errors import RunError
from shared.protocol.flower_records import SALT_BYTES, add_salt

log = logging.getLogger(__name__)
HEARTBEAT_EVERY_S = 10.0
PATIENCE_S = 60.0
PULL_FOR_S = 1.0
"""How long replies are read before whoever waits for them looks at the time again."""
LOOK_EVERY_S = 1.0
"""How often the SuperLink is asked whether those are present of whom a reply is missing."""


@contextmanager
def _mailbox_failures(what: str) -> Iterator[None]:
    """Turn what the mailbox raises into an error that names what it was asked for.

    Raises:
        FlowerAwayError: it is locked, or its disk is full.
        FlowerRefusedError: anything else.
    """
    try:
        with flower_failures(what):
            yield
    except FlowerRefusedError as error:
        if not isinstance(error.__cause__, sqlite3.OperationalError):
            raise
        raise FlowerAwayError(
            f"Expected the mailbox to {what}, got: {error.__cause__}.", hint="Is the disk full?"
        ) from None


class GuardedGrid(HttpGrid):
    """Flower's Grid, with the secret, whose messages lie in the mailbox.

    Flower's own announces a reply before its bytes are there, and then waits up to two hours for them: one node that
    stops in the middle would hold up everybody. It also believes what the reply's own bytes say of who sent it.

    Args:
        address: of the SuperLink.
        token: of the run's task.
        home: the server's folder, for the secret and the mailbox.
        largest_object_bytes: size of an object that a reply of this run may have; a larger one is not read.
    """

    def __init__(self, address: str, token: str, home: Home, *, largest_object_bytes: int) -> None:
        super().__init__(address, insecure=True, token=token)
        self._home, self._largest_object_bytes = home, largest_object_bytes
        self._retry_invoker: Any = Patience(PATIENCE_S)
        self._mailbox = Mailbox(home.mailbox)
        self._looked = dict[str, float]()
        """When it was last asked whether the node of a question is present."""

    def begin(self) -> None:
        """Empty the mailbox of what other runs left there."""
        with _mailbox_failures("begin empty"):
            self._mailbox.begin(self.run.run_id)

    def get_node_ids(self) -> list[int]:
        """Return the numbers of the nodes that are present."""
        with flower_failures("list its nodes"):
            return list(super().get_node_ids())

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Put messages into the mailbox, and wake the nodes that wait for them at the gateway.

        Guarantee: no member knows the hash of anything in a question before it is asked.

        Returns:
            Their ids.
        """
        questions, contents = list[KeptQuestion](), dict[str, bytes]()
        with _mailbox_failures("take messages"):
            for message in messages:
                # a member knows a run's first adapter; what nodes share is one record, and keeps its first salt
                add_salt(message.content, token_hex(SALT_BYTES))
                questions.append(_as_question(message, contents))
            self._mailbox.ask(questions, contents, now=time.time())
        tell(pipe_of(self._home.running), [question.node_id for question in questions])
        return [question.message_id for question in questions]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to these messages that have arrived in full, one at a time, for a second at most.

        A reply that has too many objects, too large ones, or none that can be read comes as an error in its place. So
        does that of a node whose connection broke, and that to a message that expired.

        Guarantee: a reply that never arrives in full delays no other node's reply.
        Guarantee: a reply is weighed before it is read: by the number of its objects, and by the size of each.
        """
        asked, begin = set(message_ids), time.monotonic()
        with _mailbox_failures("hand out replies"):
            arrived = [reply for reply in self._mailbox.replies(self.run.run_id) if reply.question in asked]
        for reply in arrived:
            if time.monotonic() - begin > PULL_FOR_S:
                return
            with _mailbox_failures("hand out a reply"):
                message = self._read(reply)
                self._mailbox.drop([reply.question])
            yield message
        asked -= {reply.question for reply in arrived}
        if any(begin - self._looked.get(question, float("-inf")) >= LOOK_EVERY_S for question in asked):
            lately = {question: at for question, at in self._looked.items() if begin - at < LOOK_EVERY_S}
            self._looked = lately | dict.fromkeys(asked, begin)
            yield from self._never_answered(asked)

    def _read(self, reply: KeptReply) -> Message:
        metadata = message_from_proto(MessageProto.FromString(reply.message)).metadata
        largest = self._largest_object_bytes + BESIDE_UPDATE_BYTES
        if len(reply.sizes) > MOST_OBJECTS or max(reply.sizes.values()) > largest:
            return _error(metadata, ErrorCode.UNKNOWN, Reason.OVERSIZED)
        return _inflated(metadata, self._mailbox.contents(reply.question))

    def _never_answered(self, asked: set[str]) -> list[Message]:
        """Return an error for each question to which no reply will come."""
        with _mailbox_failures("say what was asked"):
            present, questions = (
                set(self.get_node_ids()),
                self._mailbox.open_questions(self.run.run_id, now=time.time()),
            )
            answered = {reply.question for reply in self._mailbox.replies(self.run.run_id)}
            gone = {question for question in asked - answered if questions.get(question) not in present}
            self._mailbox.drop(gone)
        return [
            _error(
                Metadata(
                    self.run.run_id, "", SUPERLINK_NODE_ID, SUPERLINK_NODE_ID, question, "", time.time(), 0.0, "query"
                ),
                ErrorCode.NODE_UNAVAILABLE if question in questions else ErrorCode.MESSAGE_UNAVAILABLE,
                "",
            )
            for question in sorted(gone)
        ]

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=self._addr,
            insecure=True,
            root_certificates=None,
            interceptors=[*interceptors(self._home, "flwr-serverapp"), RuntimeTokenHttpInterceptor(token=self._token)],
            retry_invoker=self._retry_invoker,
        )

    def close(self) -> None:
        """Close the connection, and empty the mailbox."""
        super().close()
        # what stays there is dropped when the next run begins
        with suppress(RunError), _mailbox_failures("be emptied"):
            self._mailbox.end()
        self._mailbox.close()


def _as_question(message: Message, contents: dict[str, bytes]) -> KeptQuestion:
    """Return a message as the mailbox keeps it; objects that are not in `contents` yet are added."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        tree = get_object_tree(message)
        objects = get_all_nested_objects(message)
        for name, part in objects.items():
            if name not in contents:
                contents[name] = part.deflate()
        written = message_to_proto(remove_content_from_message(message))
    written.metadata.ClearField("src_task_id")
    written.metadata.ClearField("dst_task_id")
    metadata = message.metadata
    return KeptQuestion(
        metadata.message_id,
        metadata.run_id,
        metadata.dst_node_id,
        metadata.created_at + metadata.ttl,
        written.SerializeToString(),
        tree.SerializeToString(),
        tuple(objects),
    )


def _inflated(metadata: Metadata, contents: dict[str, bytes]) -> Message:
    try:
        message = inflate_object_from_contents(metadata.message_id, contents)
    except Exception as error:  # a node's bytes may be anything, and end no round
        log.warning("A reply of node %d cannot be read: %s", metadata.src_node_id, type(error).__name__)
        return _error(metadata, ErrorCode.UNKNOWN, Reason.MALFORMED)
    if not isinstance(message, Message):
        return _error(metadata, ErrorCode.UNKNOWN, Reason.MALFORMED)
    # what the gateway has checked, not what the bytes say of themselves
    vars(message.metadata).update(vars(metadata))
    return message


def _error(metadata: Metadata, code: int, reason: str) -> Message:
    """Return an error in the place of a reply; the update filter knows what to make of it."""
    return Message(metadata=metadata, error=Error(code, reason))  # type: ignore[call-overload, no-any-return]


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
        grid.begin()
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
