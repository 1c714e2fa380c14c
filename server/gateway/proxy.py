"""The only way to the SuperLink: a reverse proxy that forwards the calls of a node's link, and answers 404 to all else.

The calls about messages are answered here, out of the mailbox; the SuperLink has the others.

The client certificate decides who may pass: the request must come over a connection whose certificate is the
node's own, and the node must not have been revoked. Enrolment is the one thing that is done without a certificate.

Flower 1.41 serves its unauthenticated Control and Runtime APIs on the Fleet's own port; a SuperLink that nodes can
reach lets any of them start code on it. So the SuperLink listens on loopback, and nodes see this.

Guarantee: no path outside the Fleet API reaches the SuperLink, however it is written.
"""

import asyncio
import logging
import sqlite3
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import responses
from typing import Protocol

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from server.gateway.bodies import Pace, TooLarge, TooSlow, declared_bytes, read_whole
from server.gateway.fleet_calls import Call, CallRefused
from server.gateway.refusals import EVERY_S, Refusals, origin
from server.gateway.turns import REMEMBERED_CLIENTS, Busy, TokenBuckets, Turns
from server.mailbox.fleet_messages import NotSignedError
from server.mailbox.mailbox import NotWantedError
from server.run_store.values import Node

log = logging.getLogger(__name__)

NOT_FORWARDED = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade "
    b"host content-length accept-encoding cookie forwarded x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
METHODS = ("GET", "POST", "PUT")
SILENT_FOR_S = 600.0
HTTP_OK = 200
PROTOBUF = "application/protobuf"
PART_BYTES = 64 * 2**10
CLOSE = {"Connection": "close"}
"""For a request whose body is not read to its end."""


@dataclass(frozen=True)
class Limits:
    """The most that one client may ask of the server."""

    body_bytes: int = 64 * 2**20
    """Largest request body."""
    requests_per_s: float = 50.0
    """Sustained requests of one address."""
    bytes_per_s: float = 4 * 2**20
    """Sustained bytes that a node may send: nothing it sends may fill the disk."""
    bytes_at_once: int = 64 * 2**20
    """Bytes a node may send at once; no less than a body."""
    burst: int = 200
    """Requests an address may make at once."""
    timeout_s: float = 60.0
    """Longest wait for the SuperLink."""
    pace: Pace = field(default_factory=Pace)
    """The slowest that a body may come."""
    each: int = 4
    """Requests of one node that are read, forwarded or answered at a time; Flower's client makes two."""
    at_once: int = 4
    """Requests that are before the SuperLink at a time. It computes one at a time: more would only contend for its
    database, until SQLite gives up on some."""
    waiting: int = 32
    """Requests of one node that may wait for those before them."""


NOT_FOUND = PlainTextResponse("not found\n", 404)
Admit = Callable[[Request], Node | None]
"""Returns the node that a request comes from, or None."""


class Calls(Protocol):
    """Knows which requests may go on, and in which form: `FleetCalls`."""

    def knows(self, path: str) -> bool:
        """Return whether this is the path, as it came, of a call that is forwarded."""
        ...

    def largest_body(self, path: str) -> int:
        """Return the most bytes that this call needs."""
        ...

    def read(self, node: Node, path: str, body: bytes) -> Call:
        """Return the call to forward in place of this one.

        Raises:
            CallRefused: it is not forwarded.
        """
        ...

    def note_answer(self, node: Node, call: Call, answer: bytes) -> None:
        """Take note of the SuperLink's answer before the node gets it."""
        ...


class Messages(Protocol):
    """Answers the calls about messages: `FleetMessages`."""

    def knows(self, request: object) -> bool:
        """Return whether this is one of them."""
        ...

    def answer(self, node: Node, headers: Mapping[str, str], request: object) -> bytes:
        """Return the answer to a node's request."""
        ...


def build_gateway(
    upstream: str,
    limits: Limits,
    *,
    admit: Admit,
    calls: Calls,
    messages: Messages | None = None,
    headers: Mapping[str, str] | None = None,
    leaves: Callable[[int], None] = lambda _node: None,
    routes: Sequence[BaseRoute] = (),
    refusals: Refusals | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Starlette:
    """Return the ASGI application; uvicorn gives it TLS.

    Args:
        upstream: base URL of the SuperLink on loopback.
        limits: per client.
        admit: decides who a request comes from.
        calls: decides what passes.
        messages: answers what is about messages, if it is not forwarded as well.
        headers: added to what is forwarded: the SuperLink's secret.
        leaves: is told of a node that says that it is leaving.
        routes: what the gateway answers by itself, before everything else.
        refusals: counts what is refused.
        transport: how to reach the SuperLink, for tests.
        clock: seconds.
    """
    refusals = refusals or Refusals()
    gate, visitors = _Gate(limits, calls, messages, headers or {}, clock, refusals, leaves), Visitors(clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # connections are never waited for inside httpx: the gate's turns are as many
        most = httpx.Limits(max_connections=limits.at_once, max_keepalive_connections=limits.at_once)
        async with httpx.AsyncClient(
            base_url=upstream, timeout=limits.timeout_s, transport=transport, limits=most
        ) as client:
            app.state.client = client
            reporting = asyncio.create_task(_report(refusals))
            yield
            reporting.cancel()
            refusals.report()

    async def forward(request: Request) -> Response:
        node = admit(request)
        name = None if node is None else node.name
        response, why = await gate.answer(request, node)
        _note(refusals, request, name, response.status_code, why)
        if response.status_code == HTTP_OK and visitors.connects(str(name), _address(request)):
            log.info("%s connects from %s.", name, _address(request))
        return response

    async def not_found(request: Request, _error: Exception) -> Response:
        # another method than a path knows: what is not there and what is not allowed look the same
        _note(refusals, request, None, NOT_FOUND.status_code)
        return NOT_FOUND

    everything_else = Route("/{path:path}", forward, methods=list(METHODS))
    return Starlette(routes=[*routes, everything_else], lifespan=lifespan, exception_handlers={405: not_found})


class _Gate:
    """Decides about each request, and takes nothing upstream for one that is not here whole.

    Guarantee: a request takes a place before the SuperLink once its body is here whole, until the answer is here whole.
    """

    def __init__(
        self,
        limits: Limits,
        calls: Calls,
        messages: Messages | None,
        headers: Mapping[str, str],
        clock: Callable[[], float],
        refusals: Refusals,
        leaves: Callable[[int], None],
    ) -> None:
        self._limits, self._calls, self._headers, self._refusals = limits, calls, headers, refusals
        self._leaves = leaves
        # a thread of its own: whoever else has the mailbox's file keeps no connection waiting
        self._messages, self._mailbox = messages, ThreadPoolExecutor(1, "mailbox")
        self._requests = TokenBuckets(limits.requests_per_s, limits.burst, clock)
        self._volumes = TokenBuckets(limits.bytes_per_s, limits.bytes_at_once, clock)
        self._own = Turns(at_once=sys.maxsize, each=limits.each, waiting=limits.waiting)
        self._upstream = Turns(at_once=limits.at_once, each=limits.each, waiting=limits.waiting)

    async def answer(self, request: Request, node: Node | None) -> tuple[Response, str]:
        """Return what a node gets, and why if its call was refused."""
        try:
            return await self._decided(request, node), ""
        except CallRefused as error:
            return PlainTextResponse("refused\n", error.status), str(error)

    async def _decided(self, request: Request, node: Node | None) -> Response:
        # the raw path, before any decoding: nothing that a server behind could read as another path
        path = bytes(request.scope.get("raw_path") or b"").decode("latin-1")
        if not self._calls.knows(path) or request.method != "POST" or request.url.query:
            return NOT_FOUND
        if node is None:
            return PlainTextResponse("not a node of this federation\n", 401)
        if not self._requests.take(node.name):
            return PlainTextResponse("too many requests\n", 429, headers={"Retry-After": "1"})
        limit = min(self._limits.body_bytes, self._calls.largest_body(path))
        size = declared_bytes(request, limit)
        if size > limit:
            return PlainTextResponse("body too large\n", 413)
        if not self._volumes.take(node.name, size):
            return PlainTextResponse("too many bytes\n", 429, headers={"Retry-After": "5"})
        try:
            async with self._own.place(node.name):
                call = self._calls.read(node, path, await read_whole(request, limit, self._limits.pace))
                return await self._answered(request, node, call)
        except TooLarge:
            return PlainTextResponse("body too large\n", 413, headers=CLOSE)
        except TooSlow:
            return PlainTextResponse("too slow\n", 408, headers=CLOSE)
        except Busy:
            return PlainTextResponse("too many requests\n", 429, headers={"Retry-After": "1"})
        except ClientDisconnect:
            return PlainTextResponse("gone\n", 400)

    async def _answered(self, request: Request, node: Node, call: Call) -> Response:
        if call.leaves:
            self._leaves(node.node_id)
        async with self._upstream.place(node.name):
            if self._messages is None or not self._messages.knows(call.request):
                return await self._forwarded(request, node, call)
            try:
                reply = await asyncio.get_running_loop().run_in_executor(
                    self._mailbox, self._messages.answer, node, request.headers, call.request
                )
            except NotSignedError:
                return PlainTextResponse("not signed by this node\n", 401)
            except NotWantedError:
                return PlainTextResponse("nobody waits for it\n", 410)
            except sqlite3.Error as error:
                self._refusals.count("The mailbox failed", str(error))
                return PlainTextResponse("the coordination server is not ready\n", 503, headers={"Retry-After": "5"})
        if call.answer_is_read:
            self._calls.note_answer(node, call, reply)
        headers = {"content-length": str(len(reply))}
        return StreamingResponse(_parts(reply), HTTP_OK, headers=headers, media_type=PROTOBUF)

    async def _forwarded(self, request: Request, node: Node, call: Call) -> Response:
        client: httpx.AsyncClient = request.app.state.client
        replaced = NOT_FORWARDED | {name.lower().encode() for name in self._headers}
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in replaced]
        headers += [(name.encode(), value.encode()) for name, value in self._headers.items()]
        headers.append((b"accept-encoding", b"identity"))
        try:
            outgoing = client.build_request(request.method, call.path, headers=headers, content=call.body)
            upstream = await client.send(outgoing, stream=True)
            try:
                # whole, as it came: a node that reads slowly holds nothing upstream
                reply = b"".join([part async for part in upstream.aiter_raw()])
            finally:
                await upstream.aclose()
        except httpx.HTTPError as error:
            self._refusals.count("The SuperLink did not answer", type(error).__name__)
            return PlainTextResponse("the coordination server is not ready\n", 503, headers={"Retry-After": "5"})
        if upstream.status_code == HTTP_OK and call.answer_is_read:
            self._calls.note_answer(node, call, reply)
        reply_headers = {
            name: value for name, value in upstream.headers.items() if name.encode().lower() not in NOT_FORWARDED
        }
        reply_headers["content-length"] = str(len(reply))
        return StreamingResponse(_parts(reply), upstream.status_code, headers=reply_headers)


def _note(refusals: Refusals, request: Request, node: str | None, status: int, why: str = "") -> None:
    # polls are most of all requests and say nothing; refusals are what an operator looks for
    if status == HTTP_OK:
        log.debug("%s %s %s %d", _address(request), node, request.method, status)
    else:
        refusals.count(node or origin(_address(request)), f"{status} {why or responses.get(status, '')}")


async def _report(refusals: Refusals) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        refusals.report()


async def _parts(reply: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(reply), PART_BYTES):
        yield reply[begin : begin + PART_BYTES]


class Visitors:
    """Keeps who has been here lately, to tell a node that connects from one that keeps asking."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, OrderedDict[tuple[str, str], float]()

    def connects(self, node: str, address: str) -> bool:
        """Return whether this is the node's first request from there, or the first after a silence."""
        now, before = self._clock(), self._last.pop((node, address), None)
        self._last[node, address] = now
        if len(self._last) > REMEMBERED_CLIENTS:
            self._last.popitem(last=False)
        return before is None or now - before > SILENT_FOR_S


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"
