"""Nothing is shown without a session, and nothing is done for a request that this page did not make."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.web.guard import Guard, cookie_name
from shared.web.rendering import Pages, Site
from shared.web.sessions import Rate, Sessions
from tests.support.web import OpenSite, open_site

SITE = Site("node", "north", (("/", "Overview"),))
PAGES = Pages(None, SITE)


class Behind:
    """What lies behind the door, and what came to it."""

    def __init__(self) -> None:
        self.writes = list[dict[str, str]]()

    async def shown(self, request: Request) -> Response:
        asked = request.state.session.confirmations.ask("/write", {"name": "x"})
        return PAGES.response(request, "refused.html", why=f"secret words {asked} and no more")

    async def write(self, request: Request) -> Response:
        self.writes.append(request.state.form)
        return JSONResponse({"visitor": request.state.visitor})


class Caller:
    """A program that talks to the site, with a session."""

    def __init__(self, http: httpx.Client, site: OpenSite, behind: Behind) -> None:
        self.http, self.site, self.behind = http, site, behind
        answer = self.http.get(site.address)
        assert answer.status_code == 303
        page = self.http.get("/").text
        self.token = page.split('name="token" value="')[1].split('"')[0]

    def asked(self) -> str:
        """Return what answers the question of a page that is loaded now."""
        return self.http.get("/").text.split("secret words ")[1].split(" ")[0]

    def post(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Write as the page does, but for what a test changes; None leaves a header out."""
        sent = {"origin": self.site.base} | (headers or {})
        content = changes or {"data": {"token": self.token, "confirmation": self.asked(), "name": "x"}}
        return self.http.post("/write", headers={k: v for k, v in sent.items() if v is not None}, **content)


@pytest.fixture
def caller() -> Iterator[Caller]:
    behind = Behind()
    routes = [Route("/", behind.shown), Route("/write", behind.write, methods=["POST"])]
    with open_site(routes, PAGES) as site, closing(httpx.Client(base_url=site.base)) as http:
        yield Caller(http, site, behind)


@pytest.mark.guarantee("nothing of a page is shown, and nothing is done, for a request without its session's cookie.")
@pytest.mark.parametrize("cookie", [None, "", "wrong", "é"])
def test_nothing_is_shown_or_done_without_the_sessions_cookie(caller: Caller, cookie: str | None) -> None:
    header = {} if cookie is None else {"cookie": f"{cookie_name(SITE)}={cookie}".encode()}
    with httpx.Client(base_url=caller.site.base) as stranger:
        for answer in (
            stranger.get("/", headers=header),
            stranger.post("/write", headers={**header, "origin": caller.site.base}, data={"token": caller.token}),
            stranger.get("/nothing", headers=header),
            stranger.post("/leave", headers={**header, "origin": caller.site.base}, data={"token": caller.token}),
        ):
            assert answer.status_code == 401 and "secret words" not in answer.text and caller.token not in answer.text
    assert caller.behind.writes == [] and caller.http.get("/").status_code == 200


def test_a_write_of_the_page_itself_is_done_and_says_from_where(caller: Caller) -> None:
    answer = caller.post()
    assert answer.status_code == 200 and answer.json()["visitor"].startswith("127.0.0.1, session ")
    assert caller.behind.writes == [{"name": "x"}]
    form = {"name": "x", "confirmation": caller.asked()}
    assert caller.post({"x-fedvault-token": caller.token}, data=form).status_code == 200


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "foreign host": ({"host": "rebound.example:80"}, {}, 421),
    "host without a port": ({"host": "127.0.0.1"}, {}, 421),
    "foreign origin": ({"origin": "http://evil.example"}, {}, 403),
    "another port's origin": ({"origin": "http://127.0.0.1:1"}, {}, 403),
    "an origin that is hidden": ({"origin": "null"}, {}, 403),
    "no origin": ({"origin": None}, {}, 403),
    "another site made the browser ask": ({"sec-fetch-site": "same-site"}, {}, 403),
    "another site sent a form": ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, {}, 403),
    "no token": ({}, {"data": {"name": "x"}}, 403),
    "another session's token": ({}, {"data": {"token": "A" * 43}}, 403),
    "a wrong token in the header": ({"x-fedvault-token": "no"}, {}, 403),
    "no form": ({"content-type": "application/json"}, {"data": None, "content": b"{}"}, 403),
    "a form in parts": ({"content-type": "multipart/form-data; boundary=x"}, {"data": None, "content": b"--x--"}, 403),
    "a body without an end": ({}, {"data": {"name": "x" * 70_000}}, 403),
}


@pytest.mark.guarantee("nothing is done for a write without this page's own Host and Origin and its session's token.")
@pytest.mark.parametrize("case", REFUSED)
def test_a_write_that_this_page_did_not_make_is_refused(caller: Caller, case: str) -> None:
    headers, changes, status = REFUSED[case]
    assert caller.post(headers, **changes).status_code == status
    assert caller.behind.writes == []


@pytest.mark.guarantee(
    "nothing is done for a write that does not answer a question which a page of this session asked."
)
def test_a_write_that_answers_no_question_is_refused(caller: Caller) -> None:
    used = caller.asked()
    form = {"token": caller.token, "confirmation": used, "name": "x"}
    assert caller.post(data=form).status_code == 200 and len(caller.behind.writes) == 1
    asked = caller.asked()
    for wrong in (
        {"confirmation": used},
        {"confirmation": ""},
        {"confirmation": "guess"},
        {"confirmation": asked, "name": "y"},
        {"confirmation": caller.asked(), "more": "1"},
    ):
        answer = caller.post(data=form | wrong)
        assert answer.status_code == 403 and "Nothing was done" in answer.text
    del form["confirmation"]
    assert caller.post(data=form).status_code == 403 and len(caller.behind.writes) == 1


@pytest.mark.parametrize("headers", [{"host": "rebound.example"}, {"origin": "http://evil.example"}])
def test_nothing_is_shown_to_another_host_or_origin(caller: Caller, headers: dict[str, str]) -> None:
    answer = caller.http.get("/", headers=headers)
    assert answer.status_code in (421, 403) and "secret words" not in answer.text
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/style.css", "/enter?key=no"])
def test_every_answer_bears_the_strict_headers(caller: Caller, path: str) -> None:
    headers = caller.http.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == ("max-age=600" if "static" in path else "no-store") and "server" not in headers


def test_the_cookie_is_for_this_page_alone(caller: Caller) -> None:
    caller.post()
    (cookie,) = caller.http.cookies.jar
    assert (
        cookie.name == cookie_name(SITE) != cookie_name(Site("node", "south")) != cookie_name(Site("server", "south"))
    )
    with httpx.Client(base_url=caller.site.base) as http:
        caller.http.post("/leave", headers={"origin": caller.site.base}, data={"token": caller.token})
        said = http.get(caller.site.address).headers["set-cookie"].lower()
    assert "httponly" in said and "samesite=strict" in said and "path=/" in said


@pytest.mark.guarantee(
    "a session's cookie is worth nothing to another user of the machine, where the machine says who asks."
)
def test_a_stolen_cookie_lets_no_other_user_of_the_machine_in(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caller.http.get("/").status_code == 200
    kept = {"data": {"token": caller.token, "confirmation": caller.asked(), "name": "x"}}
    for other in (os.getuid() + 1, None):
        monkeypatch.setattr("shared.web.guard.user_of", lambda _client, _server, other=other: other)
        assert caller.http.get("/").status_code == caller.post(**kept).status_code == 401
    monkeypatch.undo()
    assert caller.behind.writes == [] and caller.post(**kept).status_code == 200


def test_a_site_at_another_port_opens_the_first_page_at_most_and_keeps_no_session_alive() -> None:
    asked, clock = list[str](), [0.0]

    async def shown(request: Request) -> Response:
        asked.append(request.url.path)
        return Response("shown")

    keys, link = list[str](), {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}
    sessions = Sessions(keys.append, idle_s=60, now=lambda: clock[0])
    with (
        open_site([Route("/", shown), Route("/runs/r/adapter.zip", shown)], PAGES, sessions) as site,
        closing(httpx.Client(base_url=site.base)) as http,
    ):
        assert http.get(f"/enter?key={keys[0]}").status_code == 303
        assert http.get("/runs/r/adapter.zip", headers=link).status_code == 403 and asked == []
        clock[0] = 50
        assert http.get("/", headers=link).status_code == 200
        clock[0] = 100
        assert http.get("/").status_code == 401 and asked == ["/"]


def test_a_browser_that_looks_ahead_does_not_use_the_key_up(caller: Caller) -> None:
    caller.http.post("/leave", headers={"origin": caller.site.base}, data={"token": caller.token})
    address = caller.site.address
    with httpx.Client(base_url=caller.site.base) as http:
        assert http.head(address).status_code == 405
        assert http.get(address, headers={"sec-purpose": "prefetch"}).status_code == 503
        assert http.get(address).status_code == 303 and http.get(address).status_code == 403


def test_strangers_use_up_their_own_rate_and_not_the_visitors(caller: Caller) -> None:
    with httpx.Client(base_url=caller.site.base) as stranger:
        answers = [403]
        while answers[-1] == 403 and len(answers) < 400:  # on a busy machine tokens come back meanwhile
            answers.append(stranger.get("/enter?key=guess").status_code)
    assert len(answers) > 20 and answers[-1] == 429
    assert caller.http.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/sta%09tic/x", "/%0astatic/x", "x/static/x", "/static", "/statics/x"])
def test_nobody_comes_past_the_door_on_a_path_that_only_looks_like_a_shared_file(caller: Caller, path: str) -> None:
    with socket.create_connection(("127.0.0.1", caller.site.port), 5) as stranger:
        stranger.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{caller.site.port}\r\n\r\n".encode())
        assert stranger.recv(2**12).startswith(b"HTTP/1.1 401 ")


@pytest.mark.guarantee("whoever guesses keys, however often, keeps nobody out who has the right one.")
def test_a_person_with_the_key_comes_in_however_many_guess() -> None:
    keys = list[str]()
    sessions, few = Sessions(keys.append), Rate(0.0, 3)
    door = Guard(Starlette(), pages=PAGES, sessions=sessions, hosts=["page"], strangers=few)

    async def answers() -> list[int]:
        async with httpx.AsyncClient(base_url="http://page", transport=httpx.ASGITransport(door)) as http:
            paths = [*["/enter?key=guess"] * 4, "/", f"/enter?key={keys[-1]}"]
            return [(await http.get(path)).status_code for path in paths]

    assert asyncio.run(answers()) == [403, 403, 403, 429, 429, 303]


def test_what_a_page_asks_by_itself_keeps_no_session_alive() -> None:
    now = [0.0]
    keys = list[str]()
    sessions = Sessions(keys.append, idle_s=60, now=lambda: now[0])
    behind = Behind()
    with open_site([Route("/", behind.shown)], PAGES, sessions) as site, httpx.Client(base_url=site.base) as http:
        site.keys = keys
        http.get(site.address)
        for now[0] in (40.0, 59.0):
            for header in ({"hx-request": "true"}, {"accept": "text/event-stream"}):
                assert http.get("/", headers=header).status_code == 200
        now[0] = 61.0
        answer = http.get("/", headers={"hx-request": "true"})
        assert answer.status_code == 401 and answer.headers["hx-refresh"] == "true" and len(keys) == 2
