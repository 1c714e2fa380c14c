"""Certificates that a TLS handshake accepts, and refuses where it should."""

import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.certificate_authority import (
    SERVER_LIFETIME,
    Issued,
    authorities,
    create,
    finish_roll_over,
    issue_server,
    roll_over,
)
from shared.errors import SettingsError

NOW = datetime.now(UTC)


def handshake(server: Issued, trusted: Path, host: str) -> str:
    """TLS over a socket pair; the protocol version, or the reason for refusing."""
    ours, theirs = socket.socketpair()
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.certificate, server.key)

    def serve() -> None:
        try:
            accepting.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    calling = ssl.create_default_context(cafile=str(trusted))
    calling.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with calling.wrap_socket(ours, server_hostname=host) as secured:
            return str(secured.version())
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        ours.close()
        thread.join()


def test_the_servers_certificate_is_accepted_for_its_hosts_alone(tmp_path: Path) -> None:
    authority = create(tmp_path, "clinic federation")
    server = issue_server(tmp_path, ["fed.example.org", "127.0.0.1"])
    assert handshake(server, authority.certificate, "fed.example.org") == "TLSv1.3"
    assert handshake(server, authority.certificate, "127.0.0.1") == "TLSv1.3"
    assert "Hostname mismatch" in handshake(server, authority.certificate, "evil.example.org")


def test_another_authoritys_or_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    stranger = create(tmp_path / "stranger", "stranger")
    authority = create(tmp_path / "ours", "ours", now=NOW - timedelta(days=800))
    expired = issue_server(tmp_path / "ours", ["fed.example.org"], now=NOW - timedelta(days=500))
    assert "unable to get local issuer" in handshake(expired, stranger.certificate, "fed.example.org")
    assert "expired" in handshake(expired, authority.certificate, "fed.example.org")
    assert handshake(issue_server(tmp_path / "ours", ["fed.example.org"]), authority.certificate, "fed.example.org")


def test_lifetimes_and_renewal(tmp_path: Path) -> None:
    create(tmp_path, "federation", now=NOW)
    server = issue_server(tmp_path, ["fed.example.org"], now=NOW)
    assert abs(server.expires - (NOW + SERVER_LIFETIME)) < timedelta(seconds=2)
    before = server.certificate.read_bytes()
    assert issue_server(tmp_path, ["fed.example.org"]).certificate.read_bytes() != before


@pytest.mark.guarantee("private keys are readable by their owner alone from the moment they exist.")
def test_keys_are_the_owners_alone_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    honest = os.open

    def watching(path: object, flags: int, mode: int = 0o777, **more: object) -> int:
        if ".key." in str(path):  # beside its place, before it is renamed
            opened.append(mode)
        return honest(path, flags, mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watching)
    old = os.umask(0)
    try:
        create(tmp_path / "authority", "federation")
        issue_server(tmp_path / "authority", ["fed.example.org"])
    finally:
        os.umask(old)
    keys = [path.stat().st_mode & 0o777 for path in (tmp_path / "authority").glob("*.key")]
    assert keys == [0o600, 0o600] and opened == [0o600, 0o600]
    assert (tmp_path / "authority").stat().st_mode & 0o777 == 0o700


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Expected an authority"):
        issue_server(tmp_path, ["fed.example.org"])
    create(tmp_path, "federation", now=NOW - timedelta(days=3600))
    with pytest.raises(SettingsError, match="holds one"):
        create(tmp_path, "federation")
    with pytest.raises(SettingsError, match="at least one host"):
        issue_server(tmp_path, [])
    with pytest.raises(SettingsError, match="beyond the new certificate's end"):
        issue_server(tmp_path, ["fed.example.org"])
    (tmp_path / "authority.key").write_text("damaged")
    with pytest.raises(SettingsError, match="private key"):
        issue_server(tmp_path, ["fed.example.org"], now=NOW - timedelta(days=3500))


def test_an_authority_is_rolled_over_again_and_again_and_cut_off_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path, "federation", now=NOW - timedelta(days=3500))
    with pytest.raises(SettingsError, match="being rolled over, this one is not"):
        finish_roll_over(tmp_path, ["a"])
    (tmp_path / "authority-2.key").write_text("left by a crash between a key and its certificate")
    assert [issued.key.name for issued in authorities(tmp_path)] == ["authority.key"]
    roll_over(tmp_path, now=NOW - timedelta(days=100))
    with pytest.raises(SettingsError, match="that is not being rolled over"):
        roll_over(tmp_path)
    shown = issue_server(tmp_path, ["a"])  # still of the old one, and not beyond its end
    assert shown.expires <= authorities(tmp_path)[0].expires and handshake(shown, tmp_path / "authority.crt", "a")
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(Path, "unlink", lambda _path, **_: (_ for _ in ()).throw(KeyboardInterrupt))
        finish_roll_over(tmp_path, ["a"])
    assert len(authorities(tmp_path)) == 2, "both are trusted, whichever the server shows"
    finished = finish_roll_over(tmp_path, ["a"])
    assert handshake(finished, tmp_path / "authority-2.crt", "a") == "TLSv1.3"
    assert "unable to get" in handshake(finished, tmp_path / "authority.crt", "a")
    assert roll_over(tmp_path).certificate.name == "authority-3.crt" and (tmp_path / "authority.crt").exists()
