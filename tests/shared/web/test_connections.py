"""Connections that ask for nothing keep nobody out, and one session does not follow more pages than it needs."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.web.connections import MOST_CONNECTIONS
from shared.web.events import follow
from shared.web.rendering import Pages, Site
from shared.web.sessions import MOST_STREAMS
from simulations.e2e.federation import wait_until
from tests.support.web import OpenSite, open_site

BRIEF_S = 0.3
PAGES = Pages(None, Site("node", "north"))


def shown(request: Request) -> Response:
    return Response("shown")


def events(request: Request) -> Response:
    return follow(request, lambda: "<p>now</p>", every_s=0.02)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[OpenSite]:
    with open_site([Route("/", shown), Route("/events", events)], PAGES, request_s=request.param) as opened:
        yield opened


def connect(site: OpenSite) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=10)


@pytest.mark.guarantee("connections that ask for nothing, however many, keep nobody out of a page.")
@pytest.mark.parametrize("site", [60.0], indirect=True)
def test_idle_connections_keep_the_operator_out_of_nothing(site: OpenSite) -> None:
    with ExitStack() as held, closing(httpx.Client(base_url=site.base)) as http:
        idle = [held.enter_context(connect(site)) for _ in range(MOST_CONNECTIONS)]
        assert http.get(site.address).status_code == 303 and http.get("/").text == "shown"
        (gone,) = select.select(idle, [], [], 10)[0]
        assert gone.recv(1) == b"", "one that waited longest went"
        idle += [held.enter_context(connect(site)) for _ in range(2 * MOST_CONNECTIONS)]
        assert http.get("/").text == "shown"


@pytest.mark.parametrize("site", [BRIEF_S], indirect=True)
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_request_that_does_not_come_ends_its_connection(site: OpenSite, sent: bytes) -> None:
    with connect(site) as slow:
        slow.sendall(sent)
        assert slow.recv(1) == b""


@pytest.mark.parametrize("site", [BRIEF_S], indirect=True)
def test_a_connection_that_was_used_ends_as_well(site: OpenSite) -> None:
    with connect(site) as used:
        used.sendall(f"GET /static/icon.svg HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\nGET / H".encode())
        received = b""
        while more := used.recv(65_536):
            received += more
    assert received.startswith(b"HTTP/1.1 200")


@pytest.mark.guarantee("a session follows at most `MOST_STREAMS` pages at a time.")
@pytest.mark.parametrize("site", [60.0], indirect=True)
def test_a_session_follows_only_so_many_pages(site: OpenSite) -> None:
    with ExitStack() as held, closing(httpx.Client(base_url=site.base)) as http:
        http.get(site.address)
        streams = [held.enter_context(http.stream("GET", "/events")) for _ in range(MOST_STREAMS)]
        texts = [stream.iter_text() for stream in streams]
        assert all(next(text) == "data: <p>now</p>\n\n" for text in texts)
        assert http.get("/events").status_code == 429 and http.get("/").text == "shown"
        streams[0].close()

        def one_more() -> bool:
            with http.stream("GET", "/events") as stream:
                return stream.status_code == 200

        wait_until(one_more, "the place of the closed one is free", timeout_s=10)
