"""Passes an operator's requests on to the server's page, each written anew, and few at a time.

Whoever is at the other end of a connection with a node's certificate, or with none, gets nothing here. An operator's
certificate gets nothing anywhere else: for the calls of nodes it counts as none.
"""

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from server.gateway.bodies import Pace, TooLarge, TooSlow, declared_bytes, read_whole
from server.gateway.client_certificate import client_certificate
from server.gateway.operators.admission import OperatorAdmission, named_headers
from server.gateway.refusals import Refusals, origin
from server.gateway.turns import Busy, TokenBuckets, Turns
from server.run_store.operators import OperatorCertificate

ROOT = "/operator"
PATHS = re.compile(rf"{ROOT}(/(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?)")
"""Every address of the page, as it comes: no escape, no empty part, and none that begins with a dot."""
QUERY = re.compile(r"[A-Za-z0-9_.~%+=&:@/!$'()*,;?-]{0,4096}")
EVENTS = "/live"
METHODS = ("GET", "HEAD", "POST")
PASSED = frozenset(
    b"host origin cookie content-type accept x-fedvault-token hx-request sec-fetch-site sec-fetch-mode sec-purpose "
    b"purpose".split()
)
"""Headers of a request that the page reads; no other goes on, so none can name an operator."""
NOT_PASSED_BACK = frozenset(b"connection keep-alive transfer-encoding upgrade trailer te date server".split())
CLOSE = {"Connection": "close"}
LOOK_EVERY_S = 1.0


class HeadersRefused(Exception):  # noqa: N818 - an answer, not a failure
    """A request without a host, or with two of a header."""


class Cut(Exception):  # noqa: N818 - an end
    """An answer that is not to come whole."""


@dataclass(frozen=True)
class OperatorLimits:
    """The most that operators may take; what nodes have is counted elsewhere."""

    requests_per_s: float = 20.0
    """Sustained requests under one certificate."""
    burst: int = 120
    """Requests at once."""
    body_bytes: int = 64 * 2**10
    """Largest form."""
    pace: Pace = field(default_factory=lambda: Pace(grace_s=10.0, bytes_per_s=float("inf")))
    """The slowest that a form may come."""
    at_once: int = 16
    """Requests that are with the page at a time."""
    each: int = 4
    """Those of one certificate."""
    waiting: int = 16
    """Those of one certificate that wait for these."""
    streams: int = 16
    """Pages that follow what happens, at a time."""
    streams_each: int = 4
    """Those of one certificate."""
    timeout_s: float = 60.0
    """Longest silence of the page."""


class Passage:
    """The way from the gateway to the page.

    Guarantee: no request reaches the server's page but an operator's, under the page's own paths, and written anew.
    Guarantee: an operator's pages that follow events have few places, which are nobody else's.

    Args:
        socket: where the page listens.
        admission: decides who comes through.
        limits: of operators.
        refusals: counts what is refused.
        clock: seconds.
    """

    def __init__(
        self,
        socket: str,
        admission: OperatorAdmission,
        *,
        limits: OperatorLimits | None = None,
        refusals: Refusals | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket, self._admission, self._clock = socket, admission, clock
        self._limits, self._refusals = limits or OperatorLimits(), refusals or Refusals()
        limits = self._limits
        self._requests = TokenBuckets(limits.requests_per_s, limits.burst, clock)
        self._pages = Turns(at_once=limits.at_once, each=limits.each, waiting=limits.waiting)
        # whoever follows too much hears so at once
        self._streams = Turns(at_once=limits.streams, each=limits.streams_each, waiting=0)

    def routes(self) -> list[BaseRoute]:
        """Return the requests that the gateway answers by the page."""
        return [Route(path, self, methods=list(METHODS)) for path in (ROOT, f"{ROOT}/{{rest:path}}")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: refuse it, or pass it on."""
        request = Request(scope, receive)
        address = request.client.host if request.client else "unknown"
        shows = client_certificate(scope) is not None
        operator = await run_in_threadpool(self._admission.operator, scope) if shows else None
        if operator is None:
            self._refusals.count(origin(address), "401 at the page")
            refused = PlainTextResponse("not an operator of this federation\n", 401, headers=CLOSE)
            await refused(scope, receive, send)
            return
        answer = await self._passed(request, operator, address, send)
        if answer is not None:
            self._refusals.count(operator.name, f"{answer.status_code} at the page")
            await answer(scope, receive, send)

    async def _passed(
        self, request: Request, operator: OperatorCertificate, address: str, send: Send
    ) -> Response | None:
        """Pass a request on; returns what it gets instead."""
        if not self._requests.take(operator.serial):
            return PlainTextResponse("too many requests\n", 429, headers={"Retry-After": "1"})
        # undecoded, as for nodes: nothing that the page could read as another path
        raw = bytes(request.scope.get("raw_path") or b"").decode("latin-1")
        if raw == ROOT:
            return RedirectResponse(f"{ROOT}/", 307)
        path = PATHS.fullmatch(raw)
        query = bytes(request.scope.get("query_string") or b"").decode("latin-1")
        if path is None or not QUERY.fullmatch(query):
            return PlainTextResponse("not found\n", 404, headers=CLOSE)
        limits, follows = self._limits, path[1] == EVENTS
        if declared_bytes(request, 0) > limits.body_bytes:
            return PlainTextResponse("body too large\n", 413, headers=CLOSE)
        try:
            headers = _headers(request)
            body = await read_whole(request, limits.body_bytes, limits.pace)
            async with (self._streams if follows else self._pages).place(operator.serial):
                return await self._exchanged(
                    request, path[1], query, [*headers, *named_headers(operator, address)], body, send
                )
        except HeadersRefused:
            return PlainTextResponse("a header is missing or comes twice\n", 400, headers=CLOSE)
        except TooLarge:
            return PlainTextResponse("body too large\n", 413, headers=CLOSE)
        except TooSlow:
            return PlainTextResponse("too slow\n", 408, headers=CLOSE)
        except Busy:
            return PlainTextResponse("too many at once\n", 429, headers={"Retry-After": "5"})
        except ClientDisconnect:
            return PlainTextResponse("gone\n", 400)

    async def _exchanged(
        self, request: Request, path: str, query: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, send: Send
    ) -> Response | None:
        target = f"{path}?{query}" if query else path
        url = httpx.URL(scheme="http", host="page", raw_path=target.encode())
        # a connection for each request: nothing of one operator is left in it for the next
        transport = httpx.AsyncHTTPTransport(uds=self._socket, verify=False)
        async with httpx.AsyncClient(transport=transport, timeout=self._limits.timeout_s, trust_env=False) as page:
            try:
                reply = await page.send(httpx.Request(request.method, url, headers=headers, content=body), stream=True)
            except httpx.HTTPError as error:
                self._refusals.count("The page did not answer", type(error).__name__)
                return PlainTextResponse("the page is not ready\n", 503, headers={"Retry-After": "5"})
            try:
                answer = StreamingResponse(self._parts(reply, request.scope, path == EVENTS), reply.status_code)
                answer.raw_headers = [one for one in reply.headers.raw if one[0].lower() not in NOT_PASSED_BACK]
                await answer(request.scope, request.receive, send)
            finally:
                await reply.aclose()
        return None

    async def _parts(self, reply: httpx.Response, scope: Scope, follows: bool) -> AsyncIterator[bytes]:
        """Yield the page's answer for as long as the certificate is good."""
        looked = self._clock()
        try:
            async for part in reply.aiter_raw():
                if self._clock() - looked > LOOK_EVERY_S:
                    looked = self._clock()
                    if await run_in_threadpool(self._admission.operator, scope) is None:
                        raise Cut
                yield part
        except (httpx.HTTPError, Cut):
            if not follows:  # half a file must not look whole
                raise


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the headers that go on.

    Raises:
        HeadersRefused: one of them comes twice, or no host does.
    """
    passed = [(name, value) for name, value in request.headers.raw if name in PASSED]
    names = [name for name, _value in passed]
    if len(set(names)) < len(names) or b"host" not in names:
        raise HeadersRefused
    return passed
