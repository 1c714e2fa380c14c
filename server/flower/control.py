"""What the server's own processes ask of Flower: register nodes, start a run, and take its Grid.

Every internal name of Flower that is used here is held by one contract test.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.app import Message
from flwr.app.metadata import Metadata
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_to_proto, message_from_proto, run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from server.flower.superlink import HOST, SECRET_HEADER
from server.settings import Home
from shared.errors import RunError

log = logging.getLogger(__name__)
HEARTBEAT_EVERY_S = 10.0
PATIENCE_S = 60.0
FORGOTTEN_AFTER_S = 60.0
# Flower wants a bundle for every run. Ours names what everyone has installed, and holds no code: nobody runs it.
BUNDLE = b"""\
[project]
name = "fedvault-study"
version = "1"
license = { text = "None" }
dependencies = ["flwr>=1.41,<1.42"]
[tool.flwr.app]
publisher = "fedvault"
[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
"""


class Secret:
    """Adds the loopback secret to every request."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Flower's interceptor protocol."""
        add_headers(context.request, {SECRET_HEADER: self._secret})
        return call_next(context)


@dataclass(frozen=True)
class FlowerNode:
    """A node as Flower sees it."""

    node_id: int
    status: str
    """registered, online, offline or unregistered."""


class Control:
    """Flower's Control API on this machine.

    Args:
        home: its settings and secret.
    """

    def __init__(self, home: Home) -> None:
        self._client = ControlHttpClient.from_server_address(
            f"{HOST}:{home.settings().superlink_port}", True, None, _interceptors(home, "flwr-cli")
        )

    def register(self, public_key_pem: str) -> int:
        """Let a node's key in; returns Flower's id for it.

        Raises:
            RunError: Flower does not answer, or does not take the key.
        """
        key = load_pem_public_key(public_key_pem.encode())
        # the bytes that Flower's node sends of itself
        written = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        response = _asked(self._client.RegisterNode, RegisterNodeRequest(public_key=written))
        return int(response.node_id)

    def unregister(self, node_id: int) -> None:
        """Shut a node out; what it sends from now on is refused."""
        _asked(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def nodes(self) -> list[FlowerNode]:
        """Every node that was ever registered and is not shut out."""
        found = _asked(self._client.ListNodes, ListNodesRequest()).nodes_info
        return [FlowerNode(node.node_id, str(node.status)) for node in found]

    def start_run(self) -> int:
        """Ask Flower for a new run; its number lives as long as one server process drives it."""
        content, _ = build_fab_from_files({"pyproject.toml": BUNDLE, "server/app.py": b"", "client/app.py": b""})
        fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
        return int(_asked(self._client.StartRun, StartRunRequest(fab=fab)).run_id)

    def stop_run(self, run_id: int) -> None:
        """End a run that nobody drives any more."""
        _asked(self._client.StopRun, StopRunRequest(run_id=run_id))

    def close(self) -> None:
        """Hang up."""
        self._client.close()


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
    """Flower's Grid, with the secret, and without its patience.

    Flower announces a reply before its bytes are there, and its own Grid then waits up to two hours for them: one node
    that stops in the middle would hold up everybody. It also believes what the reply's own bytes say of who sent it.
    """

    def __init__(self, address: str, token: str, home: Home) -> None:
        super().__init__(address, insecure=True, token=token)
        self._home = home
        self._arriving: dict[str, Arriving] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """The replies to these messages that are there in full, one at a time.

        Guarantee: a reply that never arrives in full delays no other node's reply.
        """
        asked, now = set(message_ids), time.monotonic()
        self._announced(asked - self._arriving.keys(), now)
        for question in asked & self._arriving.keys():
            found = self._arriving[question]
            found.asked_at = now
            if self._is_here(found):
                del self._arriving[question]
                yield from self._received(found)
        self._arriving = {
            question: found for question, found in self._arriving.items() if now - found.asked_at < FORGOTTEN_AFTER_S
        }

    def _announced(self, message_ids: set[str], now: float) -> None:
        if not message_ids:
            return
        response = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(message_ids)))
        for message, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            metadata = message_from_proto(message).metadata
            ids = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
            self._arriving[metadata.reply_to_message_id] = Arriving(metadata, ids, {}, now)

    def _is_here(self, found: Arriving) -> bool:
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, self.run.run_id)
        while found.missing:
            try:
                found.objects[found.missing[-1]] = pull(found.missing[-1])
            except (ObjectUnavailableError, ObjectPullError):
                return False  # its question stays open until whoever asked gives up
            found.missing.pop()
        return True

    def _received(self, found: Arriving) -> Iterator[Message]:
        message_id = found.metadata.message_id
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=message_id)
        )
        try:
            message = inflate_object_from_contents(message_id, found.objects)
        except Exception as error:  # a peer's bytes may be anything, and end no round
            log.warning("A reply of node %d cannot be read: %s", found.metadata.src_node_id, type(error).__name__)
            return
        if isinstance(message, Message):
            # what the SuperLink has checked, not what the bytes say of themselves
            vars(message.metadata).update(vars(found.metadata))
            yield message

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=self._addr,
            insecure=True,
            root_certificates=None,
            interceptors=[*_interceptors(self._home, "flwr-serverapp"), RuntimeTokenHttpInterceptor(token=self._token)],
            retry_invoker=self._retry_invoker,
        )


@contextmanager
def drive_run(home: Home) -> Iterator[GuardedGrid]:
    """A Grid for a new Flower run that this process drives, as Flower's own ServerApp process would.

    Raises:
        RunError: Flower does not hand out the run, or forgets it.
    """
    control = Control(home)
    run_id = control.start_run()
    address = f"{HOST}:{home.settings().superlink_port}"
    grid = GuardedGrid(address, _claimed(home, address, run_id), home)
    # a server that is gone for longer is a reason to begin anew from the last checkpoint
    grid._retry_invoker.max_time = PATIENCE_S
    done = threading.Event()
    sub_status, details = SubStatus.FAILED, "ended early"
    try:
        task = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
        TaskIdentity.node_id = context_from_proto(task.context).node_id
        grid.set_run(run_from_proto(task.run))
        threading.Thread(target=_beat, args=(grid, done), daemon=True).start()
        yield grid
        sub_status, details = SubStatus.COMPLETED, ""
    finally:
        done.set()
        grid._retry_invoker.max_tries = 1
        with suppress(httpx.HTTPError):  # Flower ends a run by itself when its heartbeats stop
            grid._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status, details=details))
        grid.close()
        control.close()


def _claimed(home: Home, address: str, run_id: int) -> str:
    """The token of our run's task; tasks of runs whose process died are ended on the way."""
    client = RuntimeHttpClient.from_server_address(
        address,
        True,
        None,
        interceptors=[
            *_interceptors(home, "SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=home.superexec_secret(), protected_methods={"/flwr.proto.Runtime/AcquireTask"}
            ),
        ],
    )
    try:
        while True:
            response = _asked(client.AcquireTask, AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if not response.token:
                raise RunError("Expected Flower to hand out the run that was started, got nothing.")
            if response.task.run_id == run_id:
                return cast(str, response.token)
    finally:
        client.close()


def _beat(grid: GuardedGrid, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_EVERY_S):
        try:
            grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.HTTPError:
            continue  # the round notices by itself


def _interceptors(home: Home, component: str) -> list[Any]:
    return [RuntimeVersionHttpInterceptor(component_name=component), Secret(home.secret())]


def _asked(call: Any, request: Any) -> Any:
    try:
        return call(request)
    except httpx.HTTPStatusError as error:
        text = error.response.text[:300]
        raise RunError(f"Expected Flower to accept {call.__name__}, got {error.response.status_code}: {text}") from None
    except httpx.HTTPError as error:
        raise RunError(
            f"Expected Flower's SuperLink to answer {call.__name__}, got {type(error).__name__}.",
            hint="Is the server running? fedvault-server start",
        ) from None
