"""What one node sends slowly, or not at all, is nobody else's concern."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.gateway.bodies import Pace, TooSlow, read_whole
from server.gateway.proxy import Limits, build_gateway
from simulations.e2e.federation import free_port
from tests.support.fleet_in_memory import AnyCalls, node_named
from tests.support.served import HOST, plain, served

MORE_THAN_A_POOL = 110
LARGE = 8 * 2**20
WITHIN_S = 5.0


async def answer(request: Request) -> Response:
    if "large" in request.url.path:
        return Response(b"x" * LARGE)
    return PlainTextResponse(f"{len(await request.body())} bytes")


@contextlib.contextmanager
def gateway(limits: Limits) -> Iterator[int]:
    """Serve a gateway before a stand-in for the SuperLink; a header says which node asks."""
    behind, port = free_port(), free_port()
    superlink = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    front = build_gateway(
        f"http://{HOST}:{behind}",
        limits,
        admit=lambda request: node_named(request.headers["flower-node"]),
        calls=AnyCalls(),
    )
    with served(plain(superlink, behind)), served(plain(front, port)):
        yield port


@contextlib.contextmanager
def sent(port: int, *requests: bytes) -> Iterator[list[socket.socket]]:
    """Hold a connection for each of these bytes."""
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(socket.create_connection((HOST, port), WITHIN_S)) for _ in requests]
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request)
        yield connections


def request_of(node: str, path: str = "pull-messages", *, length: int = 0, body: bytes = b"") -> bytes:
    head = f"POST /v1/fleet/{path} HTTP/1.1\r\nhost: x\r\nflower-node: {node}\r\ncontent-length: {length}\r\n\r\n"
    return head.encode() + body


def asked(port: int, node: str) -> httpx.Response:
    url = f"http://{HOST}:{port}/v1/fleet/pull-messages"
    return httpx.post(url, content=b"abc", headers={"flower-node": node}, timeout=WITHIN_S)


def test_bodies_that_do_not_come_keep_no_other_node_waiting() -> None:
    with gateway(Limits()) as port, sent(port, *[request_of("ward", length=10)] * MORE_THAN_A_POOL):
        assert asked(port, "lab").text == "3 bytes"


@pytest.mark.guarantee(
    "a request takes a place before the SuperLink once its body is here whole, until the answer is here whole."
)
def test_answers_that_are_not_read_keep_no_other_node_waiting() -> None:
    limits = Limits(at_once=2)
    with gateway(limits) as port, sent(port, *[request_of("ward", "large")] * 6):
        assert asked(port, "lab").text == "3 bytes"


def test_a_body_that_does_not_come_is_given_up_at_its_deadline() -> None:
    limits = Limits(pace=Pace(grace_s=0.2, bytes_per_s=1e6))
    with gateway(limits) as port, sent(port, request_of("ward", length=10, body=b"abc")) as (connection,):
        begin = time.monotonic()
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begin < 2.0
        assert connection.recv(1000) in (b"", b"too slow\n")


@pytest.mark.guarantee("a body that comes slower than its pace ends at its deadline, however steadily it drips.")
@pytest.mark.parametrize(("bytes_per_s", "arrives"), [(100.0, False), (1.0, True)])
def test_a_body_that_drips_has_the_time_that_its_bytes_give_it(bytes_per_s: float, arrives: bool) -> None:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(20):
            await asyncio.sleep(0.02)
            yield b"x"

    async def run() -> bytes:
        stream = drops()

        async def receive() -> dict[str, object]:
            part = await anext(stream, b"")
            return {"type": "http.request", "body": part, "more_body": bool(part)}

        request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
        return await read_whole(request, 100, Pace(grace_s=0.1, bytes_per_s=bytes_per_s))

    with contextlib.nullcontext() if arrives else pytest.raises(TooSlow):
        assert asyncio.run(run()) == b"x" * 20
