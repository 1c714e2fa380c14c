"""Asks Flower's Control API on this machine: register and unregister nodes, list them, start a run."""

import io
import time
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from server.flower.patience import FAULT, FlowerAwayError, FlowerFaultError, FlowerRefusedError
from server.flower.superlink import HOST, PRESENT_PATH, SECRET_HEADER
from server.settings import Home
from shared.errors import RunError
from shared.processes.running import STARTS_WITHIN_S

ANSWERS_WITHIN_S = 10.0
# Flower wants a bundle of code for every run. Ours holds none and names none: nothing that we start ever loads it.
BUNDLE = """\
[project]
name = "fedvault-study"
version = "1"
[tool.flwr.app]
publisher = "fedvault"
[tool.flwr.app.components]
serverapp = "none:none"
clientapp = "none:none"
"""


class Secret:
    """Adds the loopback secret to every request."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the header and pass the request on, as Flower's interceptors do."""
        add_headers(context.request, {SECRET_HEADER: self._secret})
        return call_next(context)


@dataclass(frozen=True)
class FlowerNode:
    """A node as Flower sees it."""

    node_id: int
    status: str
    """registered, online, offline or unregistered."""
    public_key: str = ""
    """As PEM."""
    heard_until: float = 0.0
    """Until when it counted as connected, in seconds since 1970; 0 if it never was."""

    @property
    def present(self) -> bool:
        """Return whether the node is connected now."""
        return self.status == "online"


class Control:
    """Flower's Control API on this machine.

    Args:
        home: its settings and secret.
    """

    def __init__(self, home: Home) -> None:
        address = f"{HOST}:{home.settings().superlink_port}"
        self._client = ControlHttpClient.from_server_address(address, True, None, interceptors(home, "flwr-cli"))
        self._address, self._secret = address, home.secret()

    def register(self, public_key_pem: str) -> int:
        """Let a node's key in; returns Flower's number for it.

        Raises:
            RunError: Flower does not answer, or does not take the key.
        """
        key = load_pem_public_key(public_key_pem.encode())
        # the bytes that Flower's node sends of itself
        key_bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        response = call_flower(self._client.RegisterNode, RegisterNodeRequest(public_key=key_bytes))
        return int(response.node_id)

    def unregister(self, node_id: int) -> None:
        """Shut a node out; what it sends from now on is refused."""
        call_flower(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def nodes(self) -> list[FlowerNode]:
        """Return every node that was ever registered, also those that are shut out."""
        nodes = call_flower(self._client.ListNodes, ListNodesRequest()).nodes_info
        return [
            FlowerNode(node.node_id, str(node.status), node.public_key.decode(errors="replace"), node.online_until)
            for node in nodes
        ]

    def present(self, node_ids: Collection[int]) -> set[int]:
        """Tell Flower that these nodes are there; returns those that it knows.

        Raises:
            RunError: Flower does not answer.
        """
        connection, body = HTTPConnection(self._address, timeout=ANSWERS_WITHIN_S), "\n".join(map(str, node_ids))
        try:
            connection.request("POST", PRESENT_PATH, body.encode(), {SECRET_HEADER: self._secret})
            answer = connection.getresponse()
            known = {int(number) for number in answer.read().split()} if answer.status == httpx.codes.OK else None
        except (OSError, HTTPException, ValueError):
            known = None
        finally:
            connection.close()
        if known is None:
            raise FlowerAwayError("Expected Flower's SuperLink to hear who is present, it did not.")
        return known

    def wait_until_it_answers(self, *, patience_s: float = STARTS_WITHIN_S, every_s: float = 0.5) -> None:
        """Return as soon as Flower answers: it takes seconds to start, and that is no failure.

        Raises:
            RunError: it did not in time.
        """
        give_up = time.monotonic() + patience_s
        while True:
            try:
                self.nodes()
            except RunError:
                if time.monotonic() >= give_up:
                    raise
                time.sleep(every_s)
            else:
                return

    def start_run(self) -> int:
        """Ask Flower for a new run; its number lives as long as one server process drives it."""
        content = _bundle()
        fab = fab_to_proto(Fab(sha256(content).hexdigest(), content, {}))
        return int(call_flower(self._client.StartRun, StartRunRequest(fab=fab)).run_id)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def interceptors(home: Home, component: str) -> list[Any]:
    """Return what every request to Flower on this machine passes: its version, and our secret."""
    return [RuntimeVersionHttpInterceptor(component_name=component), Secret(home.secret())]


def call_flower(call: Any, request: Any) -> Any:
    """Call Flower and return its response.

    Raises:
        FlowerAwayError: Flower does not answer.
        FlowerFaultError: it fails at the request.
        FlowerRefusedError: it does not accept the request.
    """
    try:
        return call(request)
    except httpx.HTTPStatusError as error:
        text, status = error.response.text[:300], error.response.status_code
        kind = FlowerRefusedError if status < FAULT else FlowerFaultError if status == FAULT else FlowerAwayError
        raise kind(f"Expected Flower to accept {call.__name__}, got {status}: {text}") from None
    except httpx.HTTPError as error:
        raise FlowerAwayError(
            f"Expected Flower's SuperLink to answer {call.__name__}, got {type(error).__name__}.",
            hint="Is the server running? fedvault-server start",
        ) from None


def _bundle() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr(zipfile.ZipInfo("pyproject.toml"), BUNDLE)
    return buffer.getvalue()
