"""Renewal over TLS: a node learns a new authority, and one whose certificate ended is invited back."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from client.link.membership import Membership, _request, join, membership
from client.settings import Server
from server.certificate_authority import create, finish_roll_over, issue_node, issue_server, roll_over
from server.certificate_ends import without_newest_authority
from server.gateway.enrolment import invite, invite_back, revoke
from server.run_store.store import Store
from server.settings import Home
from shared.errors import PeerError, RunError, SettingsError
from shared.evidence import receipt as receipts
from simulations.e2e.federation import free_port
from tests.support.enrolling_gateway import HOST, serving

LATER = datetime.now(UTC) + timedelta(days=31)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "federation")
    create(home.keys, "test federation")
    issue_server(home.keys, [HOST])
    home.config.write_text(f'hosts = ["{HOST}"]\nport = {free_port()}\n')
    return home


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with Store(home.database()) as opened:
        yield opened


def joined(home: Home, store: Store, folder: Path, name: str) -> Membership:
    return join(invite(store, home, name), folder / name, Server(), folder)


def renewed(member: Membership) -> bool:
    return member.renew_if_due(Server(), member.folder, now=LATER)


def answers(member: Membership) -> bool:
    """Ask as the link does; whether TLS lets the question through is all that is of interest."""
    try:
        return renewed(member)
    except RunError:
        return False


@pytest.mark.guarantee(
    "while an authority is rolled over, certificates of the old one and of the new one are both accepted."
)
def test_an_authority_is_rolled_over_without_inviting_anybody_again(home: Home, store: Store, tmp_path: Path) -> None:
    with serving(home, store):
        north, south = joined(home, store, tmp_path, "north"), joined(home, store, tmp_path, "south")
    receipt = receipts.sign(a_receipt(), north.key(), north.certificate_path.read_text())
    old = (home.keys / "authority.crt").read_bytes()
    roll_over(home.keys)
    with serving(home, store):
        late = joined(home, store, tmp_path, "late")  # by an invite of now, which has both
        assert without_newest_authority(home.keys, store.enrolled_names()) == ["north", "south"]
        assert renewed(north) and renewed(north), "by its old certificate, then by its new one"
        assert without_newest_authority(home.keys, store.enrolled_names()) == ["south"]
        assert len(x509.load_pem_x509_certificates(north.authority_path.read_bytes())) == 2
    assert late.authority_path.read_bytes() == north.authority_path.read_bytes()
    finish_roll_over(home.keys, [HOST])
    with serving(home, store):
        assert answers(north) and answers(late)
        assert not answers(south), "it never heard of the new authority: it is invited back"
        back = join(invite_back(store, home, "south"), south.folder, Server(), tmp_path)
        assert answers(back)
    assert len(x509.load_pem_x509_certificates(north.authority_path.read_bytes())) == 1, (
        "the old one is trusted no more"
    )
    new = (home.keys / "authority-2.crt").read_bytes()
    for authorities in (old, old + new, new + old):
        assert receipts.signer(receipt, authorities).name == "north"
    with pytest.raises(PeerError, match="another"):
        receipts.signer(receipt, new)


def test_an_invite_of_before_a_roll_over_leaves_nobody_behind(home: Home, store: Store, tmp_path: Path) -> None:
    before = invite(store, home, "north")
    roll_over(home.keys)
    with serving(home, store):
        north = join(before, tmp_path / "north", Server(), tmp_path)
        assert without_newest_authority(home.keys, store.enrolled_names()) == []
    finish_roll_over(home.keys, [HOST])
    with serving(home, store):
        assert answers(north)


def a_receipt() -> receipts.Receipt:
    issued = datetime.now(UTC).isoformat(timespec="seconds")
    return receipts.Receipt(2, "r-1", "a" * 64, (), {}, 0.0, 1e-5, 1, "b" * 64, issued, "")


@pytest.mark.guarantee(
    "a node that is invited back keeps its key, its name and Flower's number, and no other key gets in."
)
def test_a_node_that_was_off_when_its_certificate_ended_comes_back_as_it_was(
    home: Home, store: Store, tmp_path: Path
) -> None:
    with serving(home, store):
        member = joined(home, store, tmp_path, "ward")
        (tmp_path / "ward" / "state.json").write_text("{}")
        key, request = member.key_path.read_bytes(), _request(member.key(), "ward").encode()
        ended = issue_node(home.keys, "ward", request, now=datetime.now(UTC) - timedelta(days=500))
        member.certificate_path.write_bytes(ended)
        assert not answers(member)
        stolen = invite_back(store, home, "ward").model_copy(update={"renews": False})
        with pytest.raises(PeerError, match="unknown, used or expired"):
            join(stolen, tmp_path / "thief", Server(), tmp_path)
        back = join(invite_back(store, home, "ward"), member.folder, Server(), tmp_path)
        assert answers(back)
    assert (back.name, back.node_id) == ("ward", member.node_id) and member.key_path.read_bytes() == key
    assert membership(member.folder).expires > datetime.now(UTC)


def test_only_an_enrolled_node_is_invited_back_and_only_where_it_was(home: Home, store: Store, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"enrolled \(none\), got 'ward'"):
        invite_back(store, home, "ward")
    with serving(home, store):
        ward, other = joined(home, store, tmp_path, "ward"), joined(home, store, tmp_path, "other")
        files = {path: path.read_bytes() for path in other.folder.iterdir()}
        with pytest.raises(SettingsError, match="an invite for 'other', got one for 'ward'"):
            join(invite_back(store, home, "ward"), other.folder, Server(), tmp_path)
        with pytest.raises(SettingsError, match="this one has joined"):
            join(invite(store, home, "third"), other.folder, Server(), tmp_path)
        with pytest.raises(SettingsError, match=r"Expected this node's key in .*, got nothing"):
            join(invite_back(store, home, "ward"), tmp_path / "elsewhere", Server(), tmp_path)
        assert {path: path.read_bytes() for path in other.folder.iterdir()} == files
    revoke(store, None, "ward")
    with pytest.raises(SettingsError, match=r"enrolled \(other\), got 'ward'"):
        invite_back(store, home, "ward")
    assert ward.name == "ward"


def test_a_usual_invite_reads_as_it_always_did(home: Home, store: Store) -> None:
    assert "renews" not in json.loads(invite(store, home, "ward").as_json())


def test_why_an_authority_signs_no_more_is_in_the_log_and_no_fault_of_the_node(
    home: Home,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("server.certificate_authority.NODE_LIFETIME", timedelta(days=4000))
    with serving(home, store), pytest.raises(PeerError, match="got 503"):
        joined(home, store, tmp_path, "ward")
    assert "an authority beyond the certificate's end" in caplog.text and "renew --authority" in caplog.text


@pytest.mark.parametrize("authority", ["x", "-----BEGIN CERTIFICATE-----", "THE NODE'S OWN", "NINE"])
def test_what_is_no_authority_is_not_learned(
    home: Home, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: str
) -> None:
    with serving(home, store):
        member = joined(home, store, tmp_path, "ward")
    trusted = member.authority_path.read_text()
    named = {"THE NODE'S OWN": member.certificate_path.read_text(), "NINE": trusted * 9}.get(authority, authority)
    answer = {"certificate": member.certificate_path.read_text(), "authority": named}
    monkeypatch.setattr("client.link.membership._posted", lambda *_: answer)
    with pytest.raises(PeerError, match="Expected the federation's authorities"):
        renewed(member)
    assert member.authority_path.read_text() == trusted
    del answer["authority"]
    assert renewed(member) and member.authority_path.read_text() == trusted, "an earlier server names none"
