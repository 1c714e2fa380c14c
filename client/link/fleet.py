"""One node's connection to Flower's Fleet API, through Flower's own client and message functions.

Flower's own node loop is not used: it fetches and runs what the server sends, ends the process on a failed start, and
tells the server how long training took. Every internal name of Flower that is used here is held by one contract test.
"""

import hmac
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.link.long_poll import NoWaiting
from shared.protocol.flower_records import SALT_BYTES, add_salt
from shared.protocol.long_poll import LONGEST_WAIT_S, NODE_HEADER, PRESENT_HEADER, WAIT_PATH

CONSTANT_RUNTIME_S = 0.0
"""What the server is told of the time training took: nothing."""
LATEST_AHEAD_S, LATEST_BEHIND_S = 4.5, 300.0
"""Flower accepts what was signed up to five seconds ahead or five minutes ago; a date is in whole seconds."""
TIMEOUT_S = 30.0
NEXT_WAIT_WITHIN_S = 5.0
KEPT_OPEN_S = 60.0
"""How long a connection that is not used stays open; servers keep it a little longer."""
CUT = (httpx.TransportError, ObjectPullError, ObjectPushError)
"""The network or the server went away; asking again later is right."""
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class NotAccepted(Exception):  # noqa: N818 - an answer of the server, not a failure of ours
    """The server does not know this node, or not any more, or not again yet."""


class WrongClock(NotAccepted):
    """The server refuses this machine's signatures because of their time: its clock and the server's differ."""


@dataclass(frozen=True)
class Received:
    """A message as it came, with everything needed to read it again after a crash."""

    message_id: str
    run_id: int
    objects: dict[str, bytes]
    """Flower's serialised objects by their ids."""

    def message(self) -> Message:
        """Return the message itself."""
        message = inflate_object_from_contents(self.message_id, dict(self.objects))
        assert isinstance(message, Message)  # noqa: S101 - the id of a message names a message
        message.metadata.__dict__["_message_id"] = self.message_id
        return message


class Fleet:
    """A connection under one key.

    Args:
        address: host:port of the gateway.
        key: the node's private key; signs every request.
        context: TLS with the federation's authority and the node's certificate.
        proxy: on the way to it, from `through`; None takes the one of the environment, if it names one.
    """

    def __init__(
        self,
        address: str,
        key: ec.EllipticCurvePrivateKey,
        context: ssl.SSLContext | None,
        *,
        proxy: httpx.Proxy | None = None,
    ) -> None:
        self._public = public_key_to_bytes(key.public_key())
        self._secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self._client = FleetHttpClient(
            f"{'https' if context else 'http'}://{address}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
            verify=context or True,
            timeout=TIMEOUT_S,
        )
        # Flower's client has no setting for a proxy, and hangs up after five seconds; it follows no redirect here: that
        # could lead a signed request out of TLS
        self._client._client.close()
        self._client._client = httpx.Client(
            verify=context or True, timeout=TIMEOUT_S, proxy=proxy, limits=httpx.Limits(keepalive_expiry=KEPT_OPEN_S)
        )
        self._waiting = httpx.Client(
            base_url=f"{'https' if context else 'http'}://{address}",
            verify=context or True,
            timeout=LONGEST_WAIT_S + TIMEOUT_S,
            proxy=proxy,
        )
        self.node_id = 0
        self.present_until = 0.0
        """Until when, by the monotonic clock, the server has said that it takes this node for present."""

    def activate(self, known_node_id: int) -> None:
        """Become present. Within a minute after a crash the server still holds the node for active: then it continues.

        Args:
            known_node_id: as the server once said, or 0.

        Raises:
            NotAccepted: the key is not registered, was revoked, or the clock is wrong.
        """
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            self.node_id = call_flower(self._client.ActivateNode, request).node_id
        except NotAccepted:
            self.node_id = known_node_id
            if not known_node_id or not self.heartbeat():
                raise
        # replies take their sender from here
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, self.node_id

    def heartbeat(self) -> bool:
        """Say that the node is there; False if the server does not know it."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            return bool(call_flower(self._client.SendNodeHeartbeat, request).success)
        except NotAccepted:
            return False

    def receive(self) -> Received | None:
        """Fetch the next message, whole but not confirmed; None if there is none."""
        response = call_flower(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        metadata = message_from_proto(response.messages_list[0]).metadata
        ids = [tree.object_id for tree in iterate_object_tree(response.message_object_trees[0])]
        pull = make_pull_object_fn_protobuf(self._raising(self._client.PullObject), self._node, metadata.run_id)
        return Received(metadata.message_id, metadata.run_id, pull_objects(ids, pull_object_fn=pull))

    def something_waits(self) -> bool:
        """Wait at the gateway until something is stored for this node; False if nothing was for a while.

        Raises:
            NoWaiting: the server is older.
            httpx.HTTPError: the network or the server went away.
        """
        response = self._waiting.get(WAIT_PATH, headers={NODE_HEADER: str(self.node_id)})
        if response.status_code == httpx.codes.NOT_FOUND:
            raise NoWaiting("it is older")
        response.raise_for_status()
        present = PRESENT_HEADER in response.headers
        self.present_until = time.monotonic() + LONGEST_WAIT_S + NEXT_WAIT_WITHIN_S if present else 0.0
        return response.status_code == httpx.codes.OK

    def confirm(self, received: Received) -> None:
        """Tell the server that a message is safe here."""
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=received.run_id, message_object_id=received.message_id
        )
        call_flower(self._client.ConfirmMessageReceived, request)

    def reply(self, received: Received, content: RecordDict) -> None:
        """Answer a message.

        Guarantee: a reply says nothing of how long it took: it bears its task's own moment, and one constant run time.
        Guarantee: no other member knows the hash of anything in a reply before it is sent; sent again, it is the same.

        Raises:
            Refused: nobody waits for it: its run is over, or the server's database, started afresh, has no such run.
        """
        task = received.message()
        add_salt(content, self._salt(received.message_id))
        reply = Message(content, reply_to=task)
        reply.metadata.created_at, reply.metadata.ttl = task.metadata.created_at, task.metadata.ttl
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[CONSTANT_RUNTIME_S],
            )
            try:
                response = call_flower(self._client.PushMessages, request)
            except ServerFault:
                # Flower answers so for a run that it does not know, as if it were worth trying again
                call_flower(self._client.GetRun, GetRunRequest(node=self._node, run_id=received.run_id))
                raise
            push = make_push_object_fn_protobuf(
                self._raising(self._client.PushObject), self._node, received.run_id, response.session_id
            )
            wanted = set(response.objects_to_push)
            push_objects(get_all_nested_objects(reply), push_object_fn=push, object_ids_to_push=wanted)

    def close(self, *, deactivate: bool) -> None:
        """Hang up; with `deactivate` the server hears that the node is leaving."""
        if deactivate and self.node_id:
            with suppress(httpx.HTTPError, RuntimeError):  # it will notice by itself
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
        self._client.close()
        self._waiting.close()

    def _salt(self, message_id: str) -> str:
        return hmac.digest(self._secret, f"fedvault-salt {message_id}".encode(), "sha256")[:SALT_BYTES].hex()

    @property
    def _node(self) -> Node:
        return Node(node_id=self.node_id)

    @staticmethod
    def _raising(call: Any) -> Any:
        return lambda request: call_flower(call, request)


class ServerFault(httpx.RemoteProtocolError):
    """The server answered 500: it failed, or does not know the run."""


class Refused(Exception):  # noqa: N818 - an answer of the server, not a failure of ours
    """The server will not take this request, now or later: its run is over, or it is too large."""


def call_flower(call: Any, request: Any) -> Any:
    """Call the Fleet API, and turn status codes into what the link does about them."""
    try:
        return call(request)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in TRY_AGAIN:
            cut = ServerFault if status == httpx.codes.INTERNAL_SERVER_ERROR else httpx.RemoteProtocolError
            raise cut(f"the server answered {status}") from None
        if status in {401, 412}:
            here, there = datetime.now(UTC), clock_of(error.response)
            if there is not None and not -LATEST_BEHIND_S < (here - there).total_seconds() < LATEST_AHEAD_S:
                raise WrongClock(f"this machine's clock is {clocks_in_words(here, there)}") from None
            raise NotAccepted(f"the server answered {status}") from None
        raise Refused(f"the server answered {status}") from None


def clock_of(response: httpx.Response) -> datetime | None:
    """Return the server's time, to the second, as its answer says it."""
    for written in response.headers.get_list("date"):
        with suppress(ValueError):
            return parsedate_to_datetime(written)
    return None


def clocks_in_words(here: datetime, there: datetime) -> str:
    """Return how far two clocks differ, and both times."""
    skew = (here - there).total_seconds()
    seconds, side = abs(skew), "ahead of" if skew > 0 else "behind"
    return f"{seconds:.0f} s {side} the server's: {here:%Y-%m-%d %H:%M:%S} here, {there:%Y-%m-%d %H:%M:%S} there (UTC)"


def through(proxy: str | None, extra_ca: Path | None) -> httpx.Proxy | None:
    """An outbound proxy; one that is itself reached through TLS may have its certificate from the extra authority."""
    if proxy is None:
        return None
    context = ssl.create_default_context() if proxy.startswith("https:") else None
    if context is not None and extra_ca is not None:
        context.load_verify_locations(cafile=str(extra_ca))
    return httpx.Proxy(proxy, ssl_context=context)


def tls_context(
    authorities: Path | str, certificate: Path | None, key: Path, *, extra_ca: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2 or newer that trusts the federation's authorities alone, and shows the node's certificate.

    Args:
        authorities: the federation's certificates, a file or its text: one, or two while its authority is rolled over.
        certificate: this node's, signed by one of them; None to show none.
        key: this node's private key.
        extra_ca: one more authority, for a proxy that shows a certificate of its own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if isinstance(authorities, Path):
        context.load_verify_locations(cafile=str(authorities))
    else:
        context.load_verify_locations(cadata=authorities)
    if extra_ca is not None:
        context.load_verify_locations(cafile=str(extra_ca))
    if certificate is not None and certificate.exists():
        context.load_cert_chain(str(certificate), str(key))
    return context
