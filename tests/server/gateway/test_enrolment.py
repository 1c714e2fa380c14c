"""One invite, one node, one key that it made itself."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from starlette.applications import Starlette

import client.link.membership
from client.link.fleet import NotAccepted
from client.link.membership import join, left_over, membership
from client.settings import Server
from server.certificate_authority import create
from server.gateway.bodies import Pace
from server.gateway.enrolment import Enrolment, invite, revoke, write_invite
from server.run_store.store import Store
from server.run_store.values import Node
from server.settings import Home
from shared.errors import PeerError, RunError, SettingsError
from shared.protocol.invite import ENROL_PATH, RENEW_PATH, read_invite
from simulations.e2e.federation import Federation, free_port
from tests.support.flower_control import Flower

POLICY = f'epsilon = 1.0\ndelta = 1e-6\ndeclared_size = 10\nmodels = ["{"0" * 64}"]\n'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "server")
    create(home.keys, "test federation")
    home.config.write_text('hosts = ["fed.example.org"]\n')
    return home


@pytest.fixture
def store(home: Home) -> Any:
    with Store(home.database()) as opened:
        yield opened


def request_of(tmp_path: Path, name: str = "ward") -> str:
    """A certificate signing request of a fresh key, as `join` makes it."""
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return client.link.membership._request(client.link.membership._made_key(folder / "node.key"), name)


def posted(enrolment: Enrolment, path: str, body: bytes) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=list(enrolment.routes())))
        async with httpx.AsyncClient(transport=transport, base_url="https://gate") as asking:
            return await asking.post(path, content=body)

    return asyncio.run(run())


def enrol(enrolment: Enrolment, token: str, csr: str) -> httpx.Response:
    return posted(enrolment, ENROL_PATH, json.dumps({"token": token, "csr": csr}).encode())


@pytest.mark.guarantee("an invite lets one node in, once, until it expires; only a hash of its token is kept.")
def test_an_invite_is_good_once_and_only_its_hash_is_kept(home: Home, store: Store, tmp_path: Path) -> None:
    flower, made = Flower(), invite(store, home, "ward")
    enrolment = Enrolment(store, home, flower)  # type: ignore[arg-type]
    first = enrol(enrolment, made.token, request_of(tmp_path))
    assert first.status_code == 200 and first.json()["node_id"] == "1"
    certificate = x509.load_pem_x509_certificate(first.json()["certificate"].encode())
    assert certificate.subject.rfc4514_string() == "CN=ward"
    assert certificate.not_valid_after_utc - datetime.now(UTC) < timedelta(days=398)
    second = enrol(enrolment, made.token, request_of(tmp_path, "thief"))
    assert second.status_code == 403 and len(flower.keys) == 1, "a stranger's key does not reach Flower"
    written = b"".join(path.read_bytes() for path in home.folder.rglob("*") if path.is_file())
    assert made.token.encode() not in written


@pytest.mark.guarantee(
    "whoever lost the answer may ask again with the same invite and the same key, and with no other."
)
def test_a_lost_answer_is_given_again_to_the_same_key_and_no_other(home: Home, store: Store, tmp_path: Path) -> None:
    flower, made = Flower(), invite(store, home, "ward")
    enrolment, csr = Enrolment(store, home, flower), request_of(tmp_path)  # type: ignore[arg-type]
    first, again = enrol(enrolment, made.token, csr), enrol(enrolment, made.token, csr)
    assert again.status_code == 200 and again.json()["node_id"] == first.json()["node_id"] and len(flower.keys) == 1
    keys = [x509.load_pem_x509_certificate(a.json()["certificate"].encode()).public_key() for a in (first, again)]
    assert keys[0] == keys[1]
    other = invite(store, home, "other").token
    assert enrol(enrolment, made.token, request_of(tmp_path, "thief")).status_code == 403
    assert enrol(enrolment, other, csr).status_code == 403
    later = Enrolment(store, home, flower, now=lambda: datetime.now(UTC) + timedelta(days=8))  # type: ignore[arg-type]
    assert enrol(later, made.token, csr).status_code == 403
    revoke(store, flower, "ward")  # type: ignore[arg-type]
    assert enrol(enrolment, made.token, csr).status_code == 403


@pytest.mark.guarantee(
    "whoever lost the answer may ask again with the same invite and the same key, and with no other."
)
def test_joining_again_after_a_lost_answer_comes_to_its_end(
    home: Home, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrolment, made, cuts = Enrolment(store, home, Flower()), invite(store, home, "ward"), [True, False]  # type: ignore[arg-type]

    def over_the_wire(_server: str, path: str, body: dict[str, str], *_: object) -> Any:
        answer = posted(enrolment, path, json.dumps(body).encode()).json()
        if cuts.pop(0):
            raise RunError("the connection was cut before the answer came")
        return answer

    monkeypatch.setattr(client.link.membership, "_posted", over_the_wire)
    with pytest.raises(RunError):
        join(made, tmp_path / "link", Server(), tmp_path)
    assert left_over(tmp_path / "link")
    assert join(made, tmp_path / "link", Server(), tmp_path).node_id == 1
    assert not left_over(tmp_path / "link")


@pytest.mark.parametrize(
    "answer", [{}, {"certificate": "x"}, {"certificate": 3, "node_id": "1"}, {"certificate": "OTHER", "node_id": "1"}]
)
def test_what_is_no_certificate_of_our_key_is_not_kept(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store, answer: dict[str, object]
) -> None:
    other = (home.keys / "authority.crt").read_text()
    answer = {name: other if value == "OTHER" else value for name, value in answer.items()}
    monkeypatch.setattr(client.link.membership, "_posted", lambda *_: answer)
    with pytest.raises(PeerError, match="Expected a certificate"):
        join(invite(store, home, "ward"), tmp_path / "link", Server(), tmp_path)
    assert not (tmp_path / "link" / "node.crt").exists()


@pytest.mark.guarantee("whoever guesses invites keeps nobody behind the same address from joining.")
def test_guesses_are_slowed_down_whatever_the_clock_on_the_wall_says_and_an_invite_still_works(
    home: Home, store: Store, tmp_path: Path
) -> None:
    wall = [datetime.now(UTC)]
    enrolment = Enrolment(store, home, Flower(), now=lambda: wall[0], clock=lambda: 0.0)  # type: ignore[arg-type]
    made, guess = invite(store, home, "ward"), request_of(tmp_path, "thief")
    assert [enrol(enrolment, f"guess-{n}", guess).status_code for n in range(11)] == [403] * 10 + [429]
    wall[0] += timedelta(hours=1)
    assert enrol(enrolment, "guess", guess).status_code == 429
    assert enrol(enrolment, made.token, request_of(tmp_path)).status_code == 200


def test_a_request_for_enrolment_that_does_not_come_is_given_up(home: Home, store: Store) -> None:
    enrolment = Enrolment(store, home, Flower(), pace=Pace(grace_s=0.1))  # type: ignore[arg-type]

    async def run() -> list[int]:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            statuses.extend([event["status"]] if event["type"] == "http.response.start" else [])

        scope = {"type": "http", "method": "POST", "path": ENROL_PATH, "headers": [(b"content-length", b"10")]}
        await Starlette(routes=list(enrolment.routes()))(scope, receive, send)
        return statuses

    assert asyncio.run(asyncio.wait_for(run(), 5.0)) == [408]


@pytest.mark.guarantee("an invite lets one node in, once, until it expires; only a hash of its token is kept.")
def test_an_expired_an_unknown_and_a_replaced_invite_are_refused_in_the_same_words(
    home: Home, store: Store, tmp_path: Path
) -> None:
    later = Enrolment(store, home, Flower(), now=lambda: datetime.now(UTC) + timedelta(days=7, hours=1))  # type: ignore[arg-type]
    now = Enrolment(store, home, Flower())  # type: ignore[arg-type]
    expired, replaced = invite(store, home, "one"), invite(store, home, "two")
    invite(store, home, "two")
    refusals = [
        enrol(later, expired.token, request_of(tmp_path)),
        enrol(now, "guess", request_of(tmp_path)),
        enrol(now, replaced.token, request_of(tmp_path)),
    ]
    assert [answer.status_code for answer in refusals] == [403] * 3
    assert len({answer.text for answer in refusals}) == 1


def test_of_two_that_use_an_invite_at_the_same_time_one_gets_in(home: Home, store: Store, tmp_path: Path) -> None:
    token = invite(store, home, "ward").token
    together = threading.Barrier(2)

    class Slow(Store):
        def enrol(self, *claim: Any) -> Node:
            together.wait(10)
            return super().enrol(*claim)

    flower, answers = Flower(), list[int]()
    enrolment = Enrolment(Slow(home.database()), home, flower)  # type: ignore[arg-type]
    requests = [request_of(tmp_path, name) for name in ("one", "two")]
    racing = [
        threading.Thread(target=lambda csr=csr: answers.append(enrol(enrolment, token, csr).status_code))  # type: ignore[misc]
        for csr in requests
    ]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join()
    assert sorted(answers) == [200, 403]
    assert list(flower.keys.values()) == [store.nodes()[0].public_key], "the loser's key has never been in Flower"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"token": "x", "csr": "y"}', 400),
        (b"[" * 8_000, 400),
        (b'{"token": ' + b"[" * 8_000 + b"]" * 8_000, 400),
        (b"x" * 20_000, 413),
    ],
)
def test_nonsense_is_refused_shortly(home: Home, store: Store, body: bytes, status: int) -> None:
    answer = posted(Enrolment(store, home, Flower()), ENROL_PATH, body)  # type: ignore[arg-type]
    assert answer.status_code == status and len(answer.text) < 100


def test_guessing_is_slow(home: Home, store: Store) -> None:
    enrolment = Enrolment(store, home, Flower())  # type: ignore[arg-type]
    answers = [posted(enrolment, ENROL_PATH, b"{}").status_code for _ in range(12)]
    assert answers.count(400) == 10 and answers[-1] == 429


def test_while_flower_is_away_an_invite_is_not_used_up(home: Home, store: Store, tmp_path: Path) -> None:
    flower, made = Flower(), invite(store, home, "ward")
    flower.away = True
    enrolment = Enrolment(store, home, flower)  # type: ignore[arg-type]
    assert enrol(enrolment, made.token, request_of(tmp_path)).status_code == 503
    flower.away = False
    assert enrol(enrolment, made.token, request_of(tmp_path)).status_code == 200


def test_renewal_takes_the_certificate_that_is_to_be_renewed(home: Home, store: Store, tmp_path: Path) -> None:
    enrolment = Enrolment(store, home, Flower())  # type: ignore[arg-type]
    made = invite(store, home, "ward")
    assert enrol(enrolment, made.token, request_of(tmp_path)).status_code == 200
    body = json.dumps({"csr": request_of(tmp_path)}).encode()
    assert posted(enrolment, RENEW_PATH, body).status_code == 403, "the same key, but no certificate was shown"


def test_names_are_not_given_twice(home: Home, store: Store, tmp_path: Path) -> None:
    flower, made = Flower(), invite(store, home, "ward")
    enrolment = Enrolment(store, home, flower)  # type: ignore[arg-type]
    enrol(enrolment, made.token, request_of(tmp_path))
    with pytest.raises(SettingsError, match="'ward' is taken"):
        invite(store, home, "ward")
    revoke(store, flower, "ward")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="'ward' is taken"):
        invite(store, home, "ward")
    with pytest.raises(SettingsError, match="Expected a node"):
        revoke(store, flower, "nobody")  # type: ignore[arg-type]


@pytest.mark.guarantee("a revoked node is refused from its next request on.")
def test_a_revoked_node_is_refused_also_while_flower_is_away(home: Home, store: Store, tmp_path: Path) -> None:
    flower, made = Flower(), invite(store, home, "ward")
    enrolment = Enrolment(store, home, flower)  # type: ignore[arg-type]
    enrol(enrolment, made.token, request_of(tmp_path))
    key = flower.keys[1]
    node = enrolment._node_of(key)
    assert node is not None and node.name == "ward"
    flower.away = True
    revoke(store, flower, "ward")  # type: ignore[arg-type]
    assert enrolment._node_of(key) is None


def test_an_invite_is_a_private_file_and_is_read_back(home: Home, store: Store, tmp_path: Path) -> None:
    made = invite(store, home, "ward")
    write_invite(made, tmp_path / "invite.json")
    assert read_invite(tmp_path / "invite.json") == made
    assert (tmp_path / "invite.json").stat().st_mode & 0o777 == 0o600
    for wrong in ("", "{}", '{"fedvault_invite": 2}'):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(SettingsError, match="Expected an invite"):
            read_invite(tmp_path / "wrong.json")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_invite(tmp_path / "absent.json")


@pytest.mark.integration
@pytest.mark.guarantee("the node's private key is made here and never leaves.")
def test_joining_sends_a_signing_request_and_no_key(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    really_post = httpx.Client.post

    def post(self: httpx.Client, url: str, **given: Any) -> httpx.Response:
        sent.append(json.dumps(given["json"]).encode())
        return really_post(self, url, **given)

    monkeypatch.setattr(httpx.Client, "post", post)
    federation.server("invite", "keymaker", "--out", str(tmp_path / "invite.json"))
    joined = join(read_invite(tmp_path / "invite.json"), tmp_path / "link", Server(), tmp_path)
    key = joined.key()
    (body,) = sent
    assert set(json.loads(body)) == {"token", "csr"} and "PRIVATE" not in body.decode()
    secret = key.private_numbers().private_value
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    request = x509.load_pem_x509_csr(json.loads(body)["csr"].encode()).public_bytes(serialization.Encoding.DER)
    assert secret.to_bytes(48, "big") not in request and der not in request
    assert joined.key_path.stat().st_mode & 0o777 == 0o600
    assert joined.name == "keymaker" and joined.node_id > 0
    assert not joined.renew_if_due(Server(), tmp_path)
    before = joined.expires
    assert joined.renew_if_due(Server(), tmp_path, now=datetime.now(UTC) + timedelta(days=380))
    assert joined.expires >= before


@pytest.mark.integration
@pytest.mark.guarantee("a revoked node is refused from its next request on.")
def test_a_node_that_is_connected_when_it_is_revoked_is_refused(federation: Federation) -> None:
    federation.make_node("leaver", "text,label\n", POLICY)
    federation.enrol("leaver")
    member = membership(federation.folder / "leaver" / "node" / "link")
    fleet = member.connect(Server(), federation.folder)
    fleet.activate(member.node_id)
    assert fleet.heartbeat() and fleet.receive() is None
    federation.server("revoke", "leaver")
    assert not fleet.heartbeat()
    for ask in (fleet.receive, lambda: fleet.activate(member.node_id)):
        with pytest.raises(NotAccepted):
            ask()
    fleet.close(deactivate=False)


def test_joining_says_what_is_wrong(tmp_path: Path, home: Home, store: Store) -> None:
    made = invite(store, home, "ward", lifetime=timedelta(seconds=-1))
    with pytest.raises(SettingsError, match="expired"):
        join(made, tmp_path / "link", Server(), tmp_path)
    nowhere = made.model_copy(
        update={"expires": datetime.now(UTC) + timedelta(days=1), "server": f"127.0.0.1:{free_port()}"}
    )
    with pytest.raises(RunError, match="to answer") as raised:
        join(nowhere, tmp_path / "link", Server(), tmp_path)
    assert "proxy" in raised.value.hint
    (tmp_path / "link" / "membership.json").write_text("{}")
    with pytest.raises(SettingsError, match="has joined") as again:
        join(nowhere, tmp_path / "link", Server(), tmp_path)
    assert "leave" in again.value.hint
    with pytest.raises(SettingsError, match="Expected a node that has joined"):
        membership(tmp_path / "nothing")
