"""The server's page over TLS, through the gateway: what an operator with a certificate sees, does and cannot do."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.dashboard.remote_page import KnownOperators, hosts_of
from server.gateway.operators.admission import OperatorAdmission
from server.gateway.operators.page_socket import page_socket
from server.operator.remote_operators import revoke_certificates
from server.operator_authority import operators_authority
from shared.study.declaration import Study
from tests.support.remote_page import ROOT, RemotePage, remote_page
from tests.support.served import HOST

EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemotePage]:
    with remote_page(tmp_path_factory.mktemp("remote")) as page:
        yield page


class Person:
    """An operator with a browser."""

    def __init__(self, page: RemotePage, name: str, *, may_act: bool = False) -> None:
        self.page, self.name, self.certificate = page, name, page.operator(name, may_act=may_act)
        self.http = page.browser(self.certificate, follow_redirects=True)

    def __enter__(self) -> "Person":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def looks(self, path: str = "/", **of_request: Any) -> httpx.Response:
        return self.http.get(f"/operator{path}", **of_request)

    def asked(self, action: str, **about: str) -> dict[str, str]:
        """Return the fields of a question's form; of one who is asked none, those of any form of the page."""
        page = self.looks(f"/confirm/{action}", params=about).text
        return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page.partition("<main")[2] or page))

    def answers(self, action: str, form: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        sent = {"origin": self.page.base} | (headers or {})
        return self.http.post(f"/operator/do/{action}", headers=sent, data=form)

    @property
    def token(self) -> str:
        return self.looks("/log").text.split('name="token" value="')[1].split('"')[0]

    @property
    def serial(self) -> str:
        return self.certificate.stem.rpartition("-")[2]


@pytest.fixture
def anna(opened: RemotePage) -> Iterator[Person]:
    with Person(opened, "anna") as person:
        yield person


@pytest.fixture
def ruth(opened: RemotePage) -> Iterator[Person]:
    with Person(opened, "ruth", may_act=True) as person:
        yield person


def events(page: RemotePage, most: int = 5) -> list[tuple[str, str, str]]:
    return [
        (event.kind, event.body["who"], event.body["from"]) for event in page.server.store.operator_events(most=most)
    ]


def test_an_operator_comes_in_by_the_certificate_and_every_link_stays_under_one_path(
    opened: RemotePage, anna: Person
) -> None:
    answer = anna.looks()
    assert answer.status_code == 200 and answer.url.path == "/operator/" and "The federation now" in answer.text
    cookie = answer.history[0].headers["set-cookie"].lower()
    assert all(part in cookie for part in ("__secure-fedvault", "secure", "httponly", "samesite=strict", "/operator/"))
    for path in ("/", "/nodes", "/runs", "/log"):
        text = anna.looks(path).text
        links = [
            part.split('"')[0]
            for name in ("href", "src", "action", "sse-connect")
            for part in text.split(f'{name}="')[1:]
        ]
        assert len(links) > 8 and all(link.startswith(("/operator/", "#", "?")) for link in links), links
        assert re.search(r"You are anna until 20\d\d-\d\d-\d\d, and may look and change nothing\.", text)
    assert anna.looks("/static/style.css").status_code == 200
    kind, who, where = events(opened, 1)[0]
    assert (kind, who) == ("enter", "anna") and where.startswith(f"page, {HOST}, certificate {anna.serial}, session ")


@pytest.mark.guarantee("an operator's certificate only shows, unless whoever issued it allowed actions.")
@pytest.mark.guarantee("whoever may only look changes nothing, whatever the page behind would do.")
def test_who_may_look_changes_nothing(opened: RemotePage, anna: Person) -> None:
    before = [node.name for node in opened.server.store.nodes()]
    for action, form in {"invite": {"name": "new"}, "revoke": {"node": "north-clinic"}, "none": {}}.items():
        answer = anna.answers(action, {"token": anna.token} | form)
        assert answer.status_code == 403 and "anna may look here, and change nothing" in answer.text
    for path in ("/confirm/invite?name=new", "/confirm/revoke?node=north-clinic", "/runs/r-1/adapter.zip"):
        answer = anna.looks(path)
        assert answer.status_code == 403 and "Expected an operator who may act, anna may look." in answer.text
    for path, gone in {"/nodes": ["Shut out", "Invite"], "/runs": ["Queue a study"]}.items():
        assert not any(word in anna.looks(path).text for word in gone)
    assert before == [node.name for node in opened.server.store.nodes()]
    assert not any(node.revoked for node in opened.server.store.nodes())
    left = anna.http.post("/operator/leave", headers={"origin": opened.base}, data={"token": anna.token})
    assert left.status_code == 200 and "You are logged out." in left.text, "but may log out"


@pytest.mark.guarantee(
    "what an operator does at another machine stands in the event log with name, certificate and address."
)
def test_who_may_act_acts_and_stands_in_the_log(opened: RemotePage, ruth: Person) -> None:
    forged = {"fedvault-operator": "root", "fedvault-address": "10.0.0.1", "x-forwarded-for": "10.0.0.1"}
    answer = ruth.answers("invite", ruth.asked("invite", name="harbour"), forged)
    assert answer.status_code == 200 and "harbour is invited" in answer.text
    assert answer.url.path.startswith("/operator/done/")
    kind, who, where = events(opened, 1)[0]
    assert (kind, who) == ("invite", "ruth") and where.startswith(f"page, {HOST}, certificate {ruth.serial}, session ")
    assert "harbour" in ruth.looks("/log").text


WRONG: dict[str, tuple[dict[str, str], int]] = {
    "a foreign host": ({"host": "evil.example"}, 421),
    "the host at another port": ({"host": f"{HOST}:1"}, 421),
    "a foreign origin": ({"origin": "https://evil.example"}, 403),
    "the origin without TLS": ({"origin": f"http://{HOST}"}, 403),
    "an origin that is hidden": ({"origin": "null"}, 403),
    "another site made the browser ask": ({"sec-fetch-site": "cross-site"}, 403),
    "another site sent a form": ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    "a wrong token": ({"x-fedvault-token": "no"}, 403),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_another_site_has_a_browser_ask_is_refused(opened: RemotePage, ruth: Person, case: str) -> None:
    headers, status = WRONG[case]
    assert ruth.answers("invite", ruth.asked("invite", name="evil"), headers).status_code == status
    assert "evil" not in [node.name for node in opened.server.store.nodes()]
    if case in ("a foreign host", "a foreign origin", "another site made the browser ask"):
        assert ruth.looks("/nodes", headers=headers).status_code == status


def test_a_link_at_another_site_begins_no_session(opened: RemotePage) -> None:
    with Person(opened, "lena") as lena:
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        answer = lena.looks("/", headers=link)
        assert answer.status_code == 401 and 'href="/operator/"' in answer.text and not lena.http.cookies
        assert lena.looks("/", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_session_is_worth_nothing_under_another_certificate(opened: RemotePage, anna: Person, ruth: Person) -> None:
    ruth.looks()
    with opened.browser(anna.certificate, cookies=dict(ruth.http.cookies)) as thief:
        assert thief.get("/operator/nodes", headers=EVENTS).status_code == 401


def test_one_who_is_revoked_is_refused_at_once_and_what_is_open_ends(opened: RemotePage) -> None:
    with Person(opened, "otto", may_act=True) as otto, Person(opened, "vera") as vera:
        assert otto.looks().status_code == vera.looks().status_code == 200
        with otto.http.stream("GET", "/operator/live", headers=EVENTS) as live:
            parts = live.iter_text()
            assert "Nodes present" in next(parts)
            revoke_certificates(opened.server.store, "otto", ROOT)
            begin = time.monotonic()
            assert "Nodes present" not in "".join(parts) and time.monotonic() - begin < 3
        assert otto.looks().status_code == 401 and otto.looks("/do/invite").status_code == 401
        assert vera.looks("/nodes").status_code == 200, "nobody else notices"


@pytest.mark.guarantee("an operator's pages that follow events have few places, which are nobody else's.")
def test_too_many_streams_are_refused_and_take_nothing_from_anybody(opened: RemotePage, anna: Person) -> None:
    node = opened.node("st-anne")
    with Person(opened, "nora") as nora, contextlib.ExitStack() as streams:
        nora.looks()
        cookies = dict(nora.http.cookies)
        clients = [streams.enter_context(opened.browser(nora.certificate, cookies=cookies)) for _ in range(6)]
        answers = [
            streams.enter_context(client.stream("GET", "/operator/live", headers=EVENTS)).status_code
            for client in clients
        ]
        assert answers == [200] * 4 + [429] * 2
        assert nora.looks("/nodes").status_code == 200 and anna.looks("/nodes").status_code == 200
        with anna.http.stream("GET", "/operator/live", headers=EVENTS) as other, opened.browser(node) as link:
            assert other.status_code == 200
            assert link.post("/v1/renew", json={"csr": "none"}).status_code == 400, "a node is heard as before"
    end = time.monotonic() + 5
    with opened.browser(nora.certificate, cookies=cookies) as later:
        while True:
            with later.stream("GET", "/operator/live", headers=EVENTS) as again:
                if again.status_code == 200 or time.monotonic() > end:
                    break
            time.sleep(0.1)
        assert again.status_code == 200, "places are given back when a browser goes"


@pytest.mark.guarantee("an identity that the run store does not hold as good is nobody's, whoever names it.")
def test_an_identity_that_is_not_listed_is_nobodys_at_the_socket_itself(opened: RemotePage, anna: Person) -> None:
    path = page_socket(opened.server.home.running)
    known = {"fedvault-operator": "anna", "fedvault-certificate": anna.serial, "fedvault-address": HOST}
    host = {"host": f"{HOST}:{opened.port}"}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://page") as local:
        assert local.get("/", headers=host | known).status_code == 303
        for change in (
            {"fedvault-certificate": "1"},
            {"fedvault-operator": "ruth"},
            {"fedvault-certificate": ""},
            {"fedvault-certificate": f"{anna.serial}'"},
        ):
            assert local.get("/", headers=host | known | change).status_code == 401
        for name in known:
            assert local.get("/", headers=host | {key: known[key] for key in known if key != name}).status_code == 401
        twice = [*(host | known).items(), ("fedvault-operator", "anna")]
        assert local.get("/", headers=twice).status_code == 401
        assert local.get("/static/style.css", headers=host).status_code == 401


@pytest.mark.guarantee(
    "the page opens for a certificate of the operators' authority that is listed, not revoked and not over."
)
def test_a_certificate_that_ends_while_its_connection_is_open_opens_nothing_any_more(opened: RemotePage) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509

    pem, store, now = opened.operator("paul").read_bytes(), opened.server.store, datetime.now(UTC)
    from cryptography.hazmat.primitives.serialization import Encoding

    shown = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    scope: Any = {"extensions": {"tls": {"client_cert_chain": [shown]}}}
    authority = operators_authority(opened.server.home.keys)

    def admitted(moment: datetime) -> bool:
        return OperatorAdmission(store.operators, authority, lambda: moment).operator(scope) is not None

    assert admitted(now) and not admitted(now + timedelta(days=1, seconds=1)) and not admitted(now - timedelta(days=1))
    others = (opened.server.home.keys / "authority.crt").read_text()
    assert OperatorAdmission(store.operators, others).operator(scope) is None, "another authority's word"
    revoke_certificates(store, "paul", ROOT)
    assert not admitted(now) and not KnownOperators(store).is_good(pem.hex())


@pytest.mark.guarantee(
    "an operator at another machine names no file outside `studies` and `exports` of the server's folder."
)
def test_an_operator_elsewhere_names_no_file_of_the_machine(
    opened: RemotePage, ruth: Person, tmp_path: Path, make_study: Any
) -> None:
    secret = tmp_path / "secret.toml"
    secret.write_text("password = 'of another program'")
    folder = opened.server.home.folder
    for name in (
        str(secret),
        "../fedvault.db",
        "studies/../server.toml",
        "../../secret.toml",
        ".",
        "studies/",
        "/etc/passwd",
    ):
        answer = ruth.looks(f"/confirm/run?{httpx.QueryParams(file=name)}")
        assert answer.status_code == 409 and "Expected a path below studies" in answer.text, name
        assert "password" not in answer.text.replace(secret.name, "")
    (folder / "studies").mkdir(exist_ok=True)
    (folder / "studies" / "link.toml").symlink_to(secret)
    assert "Expected a path below studies" in ruth.looks("/confirm/run?file=link.toml").text
    (folder / "studies" / "mine.toml").write_text("[study]\n")
    assert "Expected a path below" not in ruth.looks("/confirm/run?file=studies/mine.toml").text
    run = opened.server.store.create_run(_study(make_study)).id
    opened.server.store.set_state(run, "finished")
    for name in (f"{tmp_path}/out", "../out", "exports/../../out", "exports/"):
        answer = ruth.looks("/confirm/export", params={"run": run, "folder": name})
        assert answer.status_code == 409 and "Expected a path below exports" in answer.text


def _study(make_study: Any) -> Study:
    study: Study = make_study()
    return study


def test_hosts_are_written_as_browsers_write_them() -> None:
    assert hosts_of(["FL.example.org", "::1"], 8443) == ["fl.example.org:8443", "[::1]:8443"]
    assert hosts_of(["fl.example.org"], 443) == ["fl.example.org:443", "fl.example.org"]
