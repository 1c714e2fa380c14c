"""Nothing but the Fleet API passes, and nothing passes in excess."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.gateway.fleet_calls import FleetCalls
from server.gateway.handed_out import HandedOut
from server.gateway.proxy import SILENT_FOR_S, Calls, Limits, Visitors, build_gateway
from server.gateway.turns import TokenBuckets
from tests.support.fleet_in_memory import AnyCalls, node_named

FORBIDDEN = [
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/..%2fcontrol/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/%252e%252e/control/start-run",
    "/v1/fleet/./pull",
    "/v1/fleet//pull",
    "//v1/fleet/pull",
    "/v1/fleet/pull;/../../control",
    "/v1/fleet/pull\\..\\control",
    "/v1/fleet/pull?x=/v1/control",
    "/V1/FLEET/pull",
    "/v1/fleet/pull%00",
    "/v1/fleet/pull%0d%0aHost:x",
    "/v1/fleetcontrol/pull",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/get-fab",
    "/v1/fleet/pull-messages/",
]


NODE = node_named("ward-7")


def link_calls() -> FleetCalls:
    return FleetCalls(HandedOut(), lambda: 1000)


class Superlink:
    """Stands for Flower's server: says what reached it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, dict[str, str]]] = []
        self.body = b""
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT", "DELETE"])])

    async def answer(self, request: Request) -> Response:
        self.seen.append((request.scope["raw_path"].decode(), await request.body(), dict(request.headers)))
        if self.body:
            return Response(self.body, media_type="application/x-protobuf")
        return JSONResponse({"ok": True}, headers={"x-flower": "yes", "keep-alive": "5"})


def through(
    superlink: Superlink,
    *requests: dict[str, Any],
    limits: Limits | None = None,
    calls: Calls | None = None,
    leaves: Callable[[int], None] = lambda _node: None,
) -> list[httpx.Response]:
    """Send raw requests through a gateway, as a client that is not polite would."""

    async def run() -> list[httpx.Response]:
        gateway = build_gateway(
            "http://superlink",
            limits or Limits(),
            admit=lambda _request: NODE,
            calls=calls or AnyCalls(),
            leaves=leaves,
            transport=httpx.ASGITransport(superlink.app),
            clock=lambda: 0.0,
        )
        async with (
            gateway.router.lifespan_context(gateway),
            httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="https://gate") as client,
        ):
            return [await _sent(client, gateway, request) for request in requests]

    return asyncio.run(run())


async def _sent(client: httpx.AsyncClient, gateway: Starlette, request: dict[str, Any]) -> httpx.Response:
    if "raw_path" not in request:
        return await client.request(**request)
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            status.append(event["status"])

    path, _, query = request["raw_path"].partition("?")
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"gate")],
        "client": ("10.0.0.1", 1),
        "server": ("gate", 443),
        "scheme": "https",
        "http_version": "1.1",
        "root_path": "",
    }
    await gateway(scope, receive, send)
    return httpx.Response(status[0])


@pytest.mark.guarantee("no path outside the Fleet API reaches the SuperLink, however it is written.")
@pytest.mark.parametrize("path", FORBIDDEN)
def test_everything_but_the_fleet_api_is_not_found(path: str) -> None:
    superlink = Superlink()
    (response,) = through(superlink, {"raw_path": path}, calls=link_calls())
    assert response.status_code == 404 and superlink.seen == []


def test_what_is_refused_reaches_nobody_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    superlink, url = Superlink(), "/v1/fleet/send-node-heartbeat"
    for number in (7, 8):
        body = SendNodeHeartbeatRequest(node=Node(node_id=number), heartbeat_interval=1e9).SerializeToString()
        (response,) = through(superlink, {"method": "POST", "url": url, "content": body}, calls=link_calls())
        assert response.status_code == (200 if number == 7 else 401)
    ((path, body, _headers),) = superlink.seen
    assert path == url and SendNodeHeartbeatRequest.FromString(body).heartbeat_interval == 30.0, "written anew"
    assert caplog.messages[-1] == "ward-7: 401 another node's number"


def test_a_node_that_says_that_it_leaves_is_told_of_before_the_superlink_hears_it() -> None:
    superlink, left = Superlink(), list[int]()
    for call in (DeactivateNodeRequest(node_id=7), DeactivateNodeRequest(node_id=8)):
        body = call.SerializeToString()
        request = {"method": "POST", "url": "/v1/fleet/deactivate-node", "content": body}
        through(superlink, request, calls=link_calls(), leaves=left.append)
    assert left == [7] and len(superlink.seen) == 1


def test_fleet_requests_pass_with_their_body_and_headers_but_no_hops() -> None:
    superlink = Superlink()
    headers = {"flower-node": "7", "connection": "close", "x-forwarded-for": "1.2.3.4", "cookie": "a=b"}
    (response,) = through(
        superlink,
        {"method": "POST", "url": "/v1/fleet/pull-messages", "content": b"x" * 1000, "headers": headers},
    )
    assert response.json() == {"ok": True} and response.headers["x-flower"] == "yes"
    ((path, body, seen),) = superlink.seen
    assert path == "/v1/fleet/pull-messages" and body == b"x" * 1000 and seen["flower-node"] == "7"
    assert not {"x-forwarded-for", "cookie"} & set(seen) and "keep-alive" not in response.headers


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_not_found_either(method: str) -> None:
    superlink = Superlink()
    for response in through(superlink, *({"method": method, "url": url} for url in ("/v1/fleet/pull", "/v1/other"))):
        assert (response.status_code, response.text) == (404, "not found\n") and "allow" not in response.headers
    assert superlink.seen == []


def test_who_connects_is_logged_once_and_again_after_a_silence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "server.gateway.proxy")
    through(Superlink(), *[{"method": "POST", "url": "/v1/fleet/pull"}] * 3)
    assert [line for line in caplog.messages if "connects" in line] == ["ward-7 connects from 127.0.0.1."]
    now = [0.0]
    visitors = Visitors(lambda: now[0])
    assert [visitors.connects("ward-7", address) for address in ("a", "a", "b")] == [True, False, True]
    now[0] = SILENT_FOR_S - 1
    assert not visitors.connects("ward-7", "a")
    now[0] += SILENT_FOR_S + 1
    assert visitors.connects("ward-7", "a") and not visitors.connects("ward-7", "a")


def test_a_thousand_refused_requests_are_a_few_lines_of_log(caplog: pytest.LogCaptureFixture) -> None:
    refused = [{"method": ("GET", "BREW")[n % 2], "url": f"/{n}{'a' * 100}"} for n in range(1000)]
    responses = through(Superlink(), *refused)
    assert {response.status_code for response in responses} == {404}
    told = [record.getMessage() for record in caplog.records if record.name.startswith("server.gateway")]
    assert told == [
        "ward-7: 404 Not Found",
        "127.0.0.1: 404 Not Found",
        "998 more refused within 60 s: ward-7: 404 Not Found (499); 127.0.0.1: 404 Not Found (499)",
    ]


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_above_the_limit_stop_at_the_gate(declared: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    superlink = Superlink()
    content: Any = b"x" * 2000 if declared else parts()
    (response,) = through(
        superlink, {"method": "POST", "url": "/v1/fleet/push", "content": content}, limits=Limits(body_bytes=1000)
    )
    assert response.status_code == 413
    assert superlink.seen == []


def test_a_client_that_asks_too_often_waits() -> None:
    request = {"method": "POST", "url": "/v1/fleet/pull"}
    responses = through(Superlink(), *[request] * 5, limits=Limits(burst=3))
    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]


def test_a_client_that_sends_too_much_at_once_is_told_to_come_back() -> None:
    superlink = Superlink()
    request = {"method": "POST", "url": "/v1/fleet/push", "content": b"x" * 600}
    limits = Limits(body_bytes=1000, bytes_at_once=1000, bytes_per_s=0.001)
    responses = through(superlink, *[request] * 3, limits=limits)
    assert [response.status_code for response in responses] == [200, 429, 429] and len(superlink.seen) == 1
    assert responses[1].headers["retry-after"] == "5"


def test_tokens_come_back_with_time_and_clients_do_not_share_them() -> None:
    now = [0.0]
    buckets = TokenBuckets(2.0, 2, lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    assert buckets.take("b")
    now[0] = 0.5
    assert buckets.take("a") and not buckets.take("a")


def test_a_silent_superlink_is_a_503() -> None:
    async def run() -> int:
        gateway = build_gateway("http://127.0.0.1:9", Limits(), admit=lambda _request: NODE, calls=AnyCalls())
        async with (
            gateway.router.lifespan_context(gateway),
            httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="https://gate") as client,
        ):
            return (await client.post("/v1/fleet/pull")).status_code

    assert asyncio.run(run()) == 503
