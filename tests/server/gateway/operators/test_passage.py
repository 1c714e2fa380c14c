"""Over real TLS: an operator's certificate opens the page and nothing else, and nobody else's opens the page."""

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from server.certificate_authority import public_pem
from server.gateway.bodies import Pace
from server.gateway.operators import passage
from server.gateway.operators.passage import OperatorLimits
from server.operator.remote_operators import revoke_certificates
from server.operator_authority import issue
from tests.support.remote_page import ROOT, Notes, RemotePage, remote_page
from tests.support.served import HOST

GRACE_S = 0.3
FEW = OperatorLimits(
    requests_per_s=0.001, burst=20, pace=Pace(grace_s=GRACE_S, bytes_per_s=float("inf")), body_bytes=2000
)


@pytest.fixture(scope="module")
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory, notes: Notes) -> Iterator[RemotePage]:
    """A gateway before a page that notes what reaches it."""
    with remote_page(tmp_path_factory.mktemp("noted"), page=notes.app, limits=FEW) as opened:
        yield opened


@pytest.fixture
def anna(noted: RemotePage) -> Path:
    return noted.operator("anna")


@pytest.fixture(scope="module")
def node(noted: RemotePage) -> Path:
    return noted.node()


@pytest.fixture(autouse=True)
def _nothing_seen(noted: RemotePage, notes: Notes) -> None:
    notes.seen.clear()
    noted.superlink.seen.clear()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request as bytes, the last of its connection."""
    return "\r\n".join([line, f"host: {HOST}", "connection: close", *headers, "", ""]).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.guarantee(
    "no request reaches the server's page but an operator's, under the page's own paths, and written anew."
)
def test_a_request_of_an_operator_reaches_the_page_written_anew(noted: RemotePage, notes: Notes, anna: Path) -> None:
    sent = ["X-Forwarded-For: 10.0.0.1", "fedvault-address: 10.0.0.1", "te: x", "expect: y", "range: bytes=0-1"]
    answer = noted.says(anna, request("GET /operator/runs/r-1?page=2 HTTP/1.1", "cookie: a=b", *sent))
    assert status(answer) == 200 and answer.endswith(b"reached")
    ((method, path, body, headers),) = notes.seen
    assert (method, path, body) == ("GET", "/runs/r-1", b"") and set(headers) == {
        *("host", "cookie", "fedvault-operator", "fedvault-certificate", "fedvault-address")
    }
    assert headers["fedvault-operator"] == "anna" and headers["fedvault-address"] == HOST
    assert headers["fedvault-certificate"] in anna.name


def _strangers(noted: RemotePage, node: Path) -> dict[str, Path | None]:
    unlisted = issue(noted.server.home.keys, "eve", timedelta(days=1))
    revoked = noted.operator("bob")
    revoke_certificates(noted.server.store, "bob", ROOT)
    return {
        "no certificate": None,
        "a node's certificate": node,
        "a certificate that is revoked": revoked,
        "a certificate that nobody has listed": noted._written("eve", unlisted.as_pem()),
    }


def test_nobody_but_an_operator_reaches_the_page(noted: RemotePage, notes: Notes, node: Path) -> None:
    claims = ["fedvault-operator: anna", "fedvault-certificate: 1", "fedvault-address: 127.0.0.1"]
    for case, certificate in _strangers(noted, node).items():
        for path in ("/operator/", "/operator", "/operator/live", "/operator/do/invite", "/operator/static/style.css"):
            for method in ("GET", "POST"):
                answer = noted.says(certificate, request(f"{method} {path} HTTP/1.1", *claims))
                assert status(answer) == 401 and b"connection: close" in answer.lower(), case
    assert notes.seen == [] and noted.superlink.seen == []


def test_an_expired_certificate_of_an_operator_ends_the_handshake(noted: RemotePage, notes: Notes) -> None:
    expired = noted.operator("carl", now=datetime.now(UTC) - timedelta(days=2))
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        assert noted.says(expired, request("GET /operator/ HTTP/1.1")) == b""
    assert notes.seen == []


@pytest.mark.guarantee("no operator's certificate opens anything unless server.toml says so.")
def test_no_operators_certificate_gets_a_byte_past_the_gateway_while_the_page_is_shut(tmp_path: Path) -> None:
    notes = Notes()
    with remote_page(tmp_path, page=notes.app, is_open=False) as opened:
        certificate = opened.operator("anna")
        for path in ("/operator/", "/v1/fleet/pull", "/v1/wait"):
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert opened.says(certificate, request(f"GET {path} HTTP/1.1")) == b""
            assert status(opened.says(None, request(f"GET {path} HTTP/1.1"))) in (401, 404)
        assert notes.seen == [] and opened.superlink.seen == []


@pytest.mark.guarantee("an operator's certificate counts as none where a node's is asked for, whatever its key.")
def test_an_operators_certificate_reaches_no_call_of_a_node(noted: RemotePage, anna: Path) -> None:
    key = load_pem_private_key(anna.read_bytes(), None)
    node = noted.node("anna", key)  # type: ignore[arg-type]  # the very key was let in as a node as well
    shown = base64.b64encode(public_pem(key.public_key()).encode()).decode()  # type: ignore[arg-type]
    calls = {
        "POST /v1/fleet/pull-messages": 401,
        "POST /v1/fleet/push-messages": 401,
        "GET /v1/fleet/pull-messages": 404,
        "POST /v1/control/start-run": 404,
        "POST /v1/renew": 403,
        "POST /v1/enrol": 403,
    }
    body = b'{"csr": "' + b"x" * 10 + b'", "token": "guess"}'
    for call, refused in calls.items():
        own = [f"content-length: {len(body)}", f"flwr-public-key: {shown}"]
        answer = noted.says(anna, request(f"{call} HTTP/1.1", *own, body=body))
        assert status(answer) in (refused, 400, 401), (call, answer)
    assert noted.superlink.seen == []
    answer = noted.says(node, request("POST /v1/fleet/pull-messages HTTP/1.1", f"flwr-public-key: {shown}"))
    assert status(answer) == 200 and len(noted.superlink.seen) == 1, "the same key in a node's certificate"


TRICKS = [
    "//operator/",
    "/operator//",
    "/operator//nodes",
    "/operator/./nodes",
    "/operator/../v1/fleet/pull-messages",
    "/operator/..",
    "/operator/nodes/..",
    "/operator/.hidden",
    "/operator/%2e%2e/v1/fleet/pull-messages",
    "/operator/..%2f..%2fv1/wait",
    "/operator/runs%2fr-1",
    "/%6fperator/nodes",
    "/operator%2fnodes",
    "/operator/nodes%00",
    "/operator/nodes%0d%0ahost:x",
    "/operator/nodes;x=1",
    "/operator/nodes\\..",
    "/OPERATOR/nodes",
    "/operatornodes",
    "/operator/nodes/",
    "/nodes",
    "/live",
    "/do/invite",
    "https://127.0.0.1/operator/nodes",
    "http://superlink/v1/fleet/pull-messages",
    "*",
    "operator/nodes",
    "/operator/nodes?a=\\x00",
    "/operator/nodes?a=b#c",
    "/operator/nodes#c",
    '/operator/nodes?a="',
    f"/operator/nodes?{'a' * 5000}",
]


@pytest.mark.parametrize("path", TRICKS)
def test_no_trick_with_a_path_leads_anywhere(noted: RemotePage, notes: Notes, anna: Path, path: str) -> None:
    for method in ("GET", "POST"):
        answer = noted.says(anna, request(f"{method} {path} HTTP/1.1"))
        assert status(answer) in (400, 401, 404), answer
    assert notes.seen == [] and noted.superlink.seen == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PRI"])
def test_no_other_method_passes(noted: RemotePage, notes: Notes, anna: Path, method: str) -> None:
    assert status(noted.says(anna, request(f"{method} /operator/nodes HTTP/1.1"))) == 404
    assert notes.seen == [] and noted.superlink.seen == []


@pytest.mark.parametrize("line", ["CONNECT 127.0.0.1:8000 HTTP/1.1", "CONNECT /operator/ HTTP/1.1"])
def test_the_gateway_is_no_tunnel(noted: RemotePage, notes: Notes, anna: Path, line: str) -> None:
    answer = noted.says(anna, request(line) + request("GET /operator/nodes HTTP/1.1"))
    assert status(answer) in (400, 404) and answer.count(b"HTTP/1.1 ") == 1
    assert notes.seen == [] and noted.superlink.seen == []


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
def test_no_other_protocol_is_spoken_with_the_page(noted: RemotePage, notes: Notes, anna: Path, protocol: str) -> None:
    asked = [f"upgrade: {protocol}", "sec-websocket-key: x", "sec-websocket-version: 13", "http2-settings: x"]
    line = f"GET /operator/live HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade, close"
    answer = noted.says(anna, "\r\n".join([line, *asked, "", ""]).encode())
    assert status(answer) == 200 and b"101" not in answer.split(b"\r\n")[0]
    assert [seen[:2] for seen in notes.seen] == [("GET", "/live")] and "upgrade" not in notes.seen[0][3]


HIDDEN = b"POST /operator/do/revoke HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
SMUGGLED = {
    "a length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": b"content-length: 0\r\ncontent-length: 60\r\n\r\n" + HIDDEN,
    "an encoding that is unknown": b"transfer-encoding: xchunked\r\n\r\n" + HIDDEN,
    "a length behind a space": b"content-length : 60\r\n\r\n" + HIDDEN,
    "a request within a body": b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a request within a chunk": b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
    "a folded header": b"x: y\r\n content-length: 60\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("case", SMUGGLED)
def test_no_request_is_hidden_in_another(noted: RemotePage, notes: Notes, anna: Path, case: str) -> None:
    head = f"POST /operator/do/stop HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n".encode()
    answer = noted.says(anna, head + SMUGGLED[case])
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [seen[1] for seen in notes.seen] in ([], ["/do/stop"])
    assert all("transfer-encoding" not in seen[3] for seen in notes.seen)


TWICE = ["host: other", "origin: https://a\r\norigin: https://b", "cookie: a=b\r\ncookie: c=d"]


@pytest.mark.parametrize("headers", TWICE)
def test_a_header_that_could_be_read_in_two_ways_is_refused(
    noted: RemotePage, notes: Notes, anna: Path, headers: str
) -> None:
    assert status(noted.says(anna, request("GET /operator/nodes HTTP/1.1", headers))) == 400
    assert status(noted.says(anna, b"GET /operator/nodes HTTP/1.0\r\n\r\n")) == 400
    assert notes.seen == []


def test_a_body_that_drips_or_is_too_large_reaches_nobody(noted: RemotePage, notes: Notes, anna: Path) -> None:
    with noted.raw(anna) as connection:
        connection.sendall(request("POST /operator/do/stop HTTP/1.1", "content-length: 100", body=b"a"))
        begin = time.monotonic()
        assert status(connection.recv(2**12)) == 408 and time.monotonic() - begin < 10 * GRACE_S
    for headers in (["content-length: 3000"], ["transfer-encoding: chunked"]):
        body = b"a" * 3000 if "length" in headers[0] else b"bb8\r\n" + b"a" * 3000 + b"\r\n0\r\n\r\n"
        assert status(noted.says(anna, request("POST /operator/do/stop HTTP/1.1", *headers, body=body))) == 413
    assert notes.seen == []


def test_a_page_that_does_not_run_is_said_and_nothing_waits(tmp_path: Path) -> None:
    with remote_page(tmp_path, page=Notes().app) as opened:
        certificate = opened.operator("anna")
        (opened.server.home.running / "page.sock").unlink()
        answer = opened.says(certificate, request("GET /operator/ HTTP/1.1"))
        assert status(answer) == 503 and b"the page is not ready" in answer


@pytest.mark.guarantee(
    "the server's page for other machines listens on a socket of the server's user alone, and on no port."
)
def test_the_socket_of_the_page_is_the_users_own_in_a_deep_folder_too(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    with remote_page(deep, page=Notes().app) as opened:
        path = opened.server.home.running / "page.sock"
        assert len(str(path)) > 107 and path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with opened.browser(opened.operator("anna")) as anna:
            assert anna.get("/operator/nodes").text == "reached"


def test_an_address_without_its_last_stroke_leads_to_the_page(noted: RemotePage, anna: Path) -> None:
    with noted.browser(anna) as browser:
        answer = browser.get("/operator")
        assert answer.status_code == 307 and answer.headers["location"] == "/operator/"


def test_requests_beyond_a_persons_rate_are_refused(noted: RemotePage, anna: Path) -> None:
    with noted.browser(noted.operator("fast")) as fast, noted.browser(anna) as other:
        answers = [fast.get("/operator/nodes").status_code for _ in range(FEW.burst + 20)]
        assert answers[0] == 200 and answers[-1] == 429 and other.get("/operator/nodes").status_code == 200


@pytest.mark.parametrize("path", ["/operator", "/operator/.hidden"])
def test_requests_that_the_gateway_answers_itself_count_as_well(noted: RemotePage, path: str) -> None:
    with noted.browser(noted.operator("quick")) as quick:
        answers = [quick.get(path).status_code for _ in range(FEW.burst + 2)]
    assert answers[0] in (307, 404) and answers[-1] == 429


def test_half_a_file_does_not_look_whole_when_its_operator_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                yield b"part of an adapter"
                await asyncio.sleep(0.02)

        return StreamingResponse(parts())

    monkeypatch.setattr(passage, "LOOK_EVERY_S", 0.0)
    page = Starlette(routes=[Route("/runs/r-1/adapter.zip", endless)])
    with (
        remote_page(tmp_path, page=page) as opened,
        opened.browser(opened.operator("anna")) as anna,
        anna.stream("GET", "/operator/runs/r-1/adapter.zip") as answer,
    ):
        parts = answer.iter_raw()
        assert next(parts).startswith(b"part")
        revoke_certificates(opened.server.store, "anna", ROOT)
        with pytest.raises(httpx.RemoteProtocolError):
            list(parts)
