"""Real TLS connections that do nothing, or too much: each ends at its deadline, and nodes get in."""

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from client.link.fleet import tls_context
from server.certificate_authority import AUTHORITY, create, issue_node, issue_server
from server.gateway.door import ConnectionLimits
from server.gateway.process import tls_config
from simulations.e2e.federation import free_port
from tests.support.served import HOST, served

WITHIN_S = 5.0
SHORT_S = 0.3
LARGE = 32 * 2**20
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Keys(NamedTuple):
    """A federation's certificates, and a node's."""

    server: Path
    node: ssl.SSLContext
    stranger: ssl.SSLContext


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    server, key = folder / "server", ec.generate_private_key(ec.SECP384R1())
    create(server, "test federation")
    issue_server(server, [HOST])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA384())
    (folder / "node.crt").write_bytes(issue_node(server, "north", request.public_bytes(serialization.Encoding.PEM)))
    (folder / "node.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    stranger = ssl.create_default_context(cafile=server / f"{AUTHORITY}.crt")
    node = tls_context(server / f"{AUTHORITY}.crt", folder / "node.crt", folder / "node.key")
    return Keys(server, node, stranger)


async def answer(request: Request) -> Response:
    async def long() -> AsyncIterator[bytes]:
        for _ in range(LARGE // 2**16):
            yield b"x" * 2**16

    return StreamingResponse(long()) if request.url.path == "/long" else PlainTextResponse("ok")


@contextlib.contextmanager
def gateway(keys: Keys, **limits: float) -> Iterator[int]:
    """Serve an application that answers `ok` behind an entrance with these limits."""
    port = free_port()
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    few = ConnectionLimits(**limits)  # type: ignore[arg-type]
    with served(tls_config(app, keys.server, host=HOST, port=port, limits=few)):
        yield port


class Peers(contextlib.ExitStack):
    """Connections that stay open until the block ends."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def plain(self) -> socket.socket:
        return self.enter_context(socket.create_connection((HOST, self._port), WITHIN_S))

    def tls(self, context: ssl.SSLContext, request: bytes = b"") -> ssl.SSLSocket:
        connection = self.enter_context(context.wrap_socket(self.plain(), server_hostname=HOST))
        connection.sendall(request)
        return connection


def closes(connection: socket.socket) -> bool:
    """Return whether the other side closes the connection, in time."""
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    return not closes(connection)


def answers(connection: ssl.SSLSocket) -> bool:
    connection.sendall(GET)
    return connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_no_word_of_a_client_changes_the_address_that_is_counted_and_logged(keys: Keys) -> None:
    port, addresses = free_port(), list[str]()

    async def noted(request: Request) -> Response:
        addresses.append(request.client.host if request.client else "")
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", noted)])
    with served(tls_config(app, keys.server, host=HOST, port=port)), Peers(port) as peers:
        for name in (b"x-forwarded-for", b"forwarded", b"x-real-ip"):
            connection = peers.tls(keys.node, GET.replace(b"host: x", b"host: x\r\n" + name + b": 198.51.100.7"))
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert addresses == [HOST] * 3


BODY = b"GET /2 HTTP/1.1\r\nhost: x\r\n\r\n"
AMBIGUOUS = {
    "a length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + BODY,
    "two lengths": b"content-length: 0\r\ncontent-length: 6\r\n\r\n" + BODY,
    "a length below zero": b"content-length: -5\r\n\r\n" + BODY,
    "an encoding that is unknown": b"transfer-encoding: xchunked\r\n\r\n" + BODY,
    "a name with a space": b"content-length : 5\r\n\r\n" + BODY,
}


@pytest.mark.guarantee("a request whose end could be found in two ways is the last of its connection.")
@pytest.mark.parametrize("head", AMBIGUOUS)
def test_what_follows_a_request_that_could_be_read_in_two_ways_reaches_nobody(keys: Keys, head: str) -> None:
    with gateway(keys, header_s=SHORT_S, idle_s=SHORT_S) as port, Peers(port) as peers:
        connection = peers.tls(keys.node, b"POST / HTTP/1.1\r\nhost: x\r\n" + AMBIGUOUS[head])
        answered = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(2**16):
                answered += part
        assert answered.count(b"HTTP/1.1 ") == 1


@pytest.mark.guarantee("connections without a certificate, however many and idle, keep no node out.")
@pytest.mark.parametrize("kind", ["before TLS", "after TLS", "in a header"])
def test_idle_connections_keep_no_node_out(keys: Keys, kind: str) -> None:
    with gateway(keys, strangers=4) as port, Peers(port) as peers:
        begun = {"before TLS": b"", "after TLS": b"", "in a header": GET[:10]}[kind]
        idle = [peers.plain() if kind == "before TLS" else peers.tls(keys.stranger, begun) for _ in range(10)]
        assert [closes(connection) for connection in idle[:5]] == [True] * 5
        assert answers(peers.tls(keys.node)) and answers(peers.tls(keys.stranger))
        assert is_open(idle[-1])


def test_an_address_that_takes_many_places_leaves_the_others_alone(keys: Keys) -> None:
    with gateway(keys, per_address=2) as port, Peers(port) as peers:
        nodes = [peers.tls(keys.node) for _ in range(3)]
        idle = [peers.tls(keys.stranger) for _ in range(4)]
        assert [closes(connection) for connection in idle[:2]] == [True] * 2
        assert all(is_open(connection) for connection in [*nodes, *idle[2:]])


@pytest.mark.guarantee(
    "a node has at most `per_node` connections, and an address at most `per_address` without a certificate."
)
def test_a_node_that_opens_many_connections_loses_its_oldest(keys: Keys) -> None:
    with gateway(keys, per_node=2) as port, Peers(port) as peers:
        connections = [peers.tls(keys.node) for _ in range(3)]
        assert all(answers(connection) for connection in connections[1:]) and closes(connections[0])


def test_a_connection_that_does_not_speak_tls_ends_at_its_deadline(keys: Keys) -> None:
    with gateway(keys, handshake_s=SHORT_S) as port, Peers(port) as peers:
        begin = time.monotonic()
        assert closes(peers.plain()) and SHORT_S / 2 < time.monotonic() - begin < WITHIN_S / 2


@pytest.mark.parametrize("request_so_far", [b"", GET[:10], GET])
@pytest.mark.parametrize("who", ["node", "stranger"])
def test_a_header_that_does_not_come_whole_ends_the_connection(keys: Keys, request_so_far: bytes, who: str) -> None:
    with gateway(keys, header_s=SHORT_S, idle_s=SHORT_S) as port, Peers(port) as peers:
        connection = peers.tls(getattr(keys, who), request_so_far)
        begin = time.monotonic()
        assert closes(connection) and time.monotonic() - begin < WITHIN_S / 2


def test_a_node_may_rest_between_requests_and_a_stranger_may_not(keys: Keys) -> None:
    with gateway(keys, header_s=SHORT_S, idle_s=4 * SHORT_S) as port, Peers(port) as peers:
        node, stranger = peers.tls(keys.node), peers.tls(keys.stranger)
        assert answers(node) and answers(stranger)
        assert closes(stranger)
        time.sleep(1.5 * SHORT_S)
        assert is_open(node)
        node.settimeout(WITHIN_S)
        assert answers(node) and closes(node), "not for ever"


def test_a_header_that_drips_ends_at_its_deadline_too(keys: Keys) -> None:
    with gateway(keys, header_s=SHORT_S) as port, Peers(port) as peers:
        connection = peers.tls(keys.node)
        assert answers(connection)
        begin = time.monotonic()
        with pytest.raises(OSError):
            for byte in [*GET[:20], *b"a" * 1000]:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - begin < WITHIN_S / 2


def test_a_body_that_nobody_reads_ends_with_its_deadline(keys: Keys) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    with gateway(keys, header_s=SHORT_S) as port, Peers(port) as peers:
        connection = peers.tls(keys.node, head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert closes(connection)


def test_an_answer_that_nobody_reads_ends_with_its_deadline(keys: Keys) -> None:
    with gateway(keys, write_s=SHORT_S) as port, Peers(port) as peers:
        connection = peers.tls(keys.node, GET.replace(b"/", b"/long", 1))
        time.sleep(4 * SHORT_S)
        received = 0
        with contextlib.suppress(OSError):
            while part := connection.recv(2**16):
                received += len(part)
        assert 0 < received < LARGE


def test_a_stranger_has_one_request_a_connection_and_few_connections_a_second(keys: Keys) -> None:
    with gateway(keys, per_s=0.1, burst=5) as port, Peers(port) as peers:
        first = peers.tls(keys.stranger)
        assert answers(first) and closes(first)
        for _ in range(8):
            assert answers(peers.tls(keys.node)), "a node's connections are not counted against its address"
        refused = 0
        for _ in range(8):
            try:
                answers(peers.tls(keys.stranger))
            except OSError:
                refused += 1
        assert refused == 4


def test_what_strangers_send_is_counted_and_not_told_line_by_line(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    upgrade = GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    sent = [b"no http\r\n\r\n", upgrade, b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"]
    with gateway(keys) as port, Peers(port) as peers:
        for request in sent * 5:
            with contextlib.suppress(OSError):
                peers.tls(keys.stranger, request).recv(1000)
            with contextlib.suppress(OSError):
                plain = peers.plain()
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                plain.recv(1000)
        with httpx.Client(verify=keys.stranger) as client:
            assert client.get(f"https://{HOST}:{port}/").text == "ok"
    told = [line for line in caplog.messages if line.startswith(HOST)]
    assert sorted(told) == [f"{HOST}: 400 no valid request", f"{HOST}: no TLS: HTTP_REQUEST"], caplog.text
    assert not [record for record in caplog.records if record.name == "uvicorn.protocol"]
