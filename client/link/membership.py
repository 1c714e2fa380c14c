"""A node's place in a federation: its key, which it makes itself, its certificate, and what the invite said.

The files lie in the link's folder: `node.key`, `node.crt`, `authority.crt`, `membership.json`.
"""

import json
import shutil
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.link.fleet import Fleet, through, tls_context
from client.settings import Server
from shared.errors import PeerError, RunError, SettingsError
from shared.files import private_folder, write_atomically, write_private_once
from shared.protocol.invite import ENROL_PATH, RENEW_PATH, Invite

RENEW_AFTER, RENEW_BEFORE = timedelta(days=30), timedelta(days=60)
"""A month after a certificate was issued it is renewed: two months before its end something is wrong."""
MOST_AUTHORITIES = 8
INVITED_BACK = "Ask the server's operator for: fedvault-server invite NAME --renew. Then: fedvault-node join FILE"
TIMEOUT_S = 20.0
FILES = ("membership.json", "node.key", "node.crt", "authority.crt", "state.json")


@dataclass(frozen=True)
class Membership:
    """A node's membership in a federation, as `join` left it in a folder."""

    folder: Path
    name: str
    server: str
    node_id: int = 0
    """Flower's number of this node at enrolment."""

    @property
    def key_path(self) -> Path:
        """Private key; never leaves this machine."""
        return self.folder / "node.key"

    @property
    def certificate_path(self) -> Path:
        """Signed by the federation's authority."""
        return self.folder / "node.crt"

    @property
    def authority_path(self) -> Path:
        """The only authority that is trusted; two while it is rolled over."""
        return self.folder / "authority.crt"

    @property
    def expires(self) -> datetime:
        """End of the node's certificate."""
        return self._certificate().not_valid_after_utc

    @property
    def renews(self) -> datetime:
        """When the node has its certificate renewed."""
        certificate = self._certificate()
        return min(certificate.not_valid_before_utc + RENEW_AFTER, certificate.not_valid_after_utc - RENEW_BEFORE)

    def _certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_path.read_bytes())

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Read the node's key.

        Raises:
            SettingsError: it cannot be read.
        """
        try:
            key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
        except (OSError, ValueError, TypeError):
            raise SettingsError(f"Expected this node's key in {self.key_path}, got none that can be read.") from None
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - we wrote it
        return key

    def connect(self, server: Server, base: Path) -> Fleet:
        """Open a connection to the server, with this node's certificate, through the proxy if there is one."""
        return Fleet(self.server, self.key(), self._context(server, base), proxy=_proxy(server, base))

    def renew_if_due(self, server: Server, base: Path, now: datetime | None = None) -> bool:
        """Have the certificate renewed once it is a month old, and learn which authorities the federation has.

        Raises:
            RunError: the server is away.
            PeerError: it refuses, or what it sends is no certificate of this node's key.
        """
        if (now or datetime.now(UTC)) < self.renews:
            return False
        context = self._context(server, base)
        body = {"csr": _request(self.key(), self.name)}
        answer = _posted(self.server, RENEW_PATH, body, context, _proxy(server, base))
        certificate, authorities = _certificate(answer, self.key()), _authorities(answer)
        if authorities:  # first, so that a crash in between leaves a node that knows its server
            write_atomically(self.authority_path, authorities)
        write_atomically(self.certificate_path, certificate)
        return True

    def _context(self, server: Server, base: Path) -> ssl.SSLContext:
        extra = server.authority(base)
        return tls_context(self.authority_path, self.certificate_path, self.key_path, extra_ca=extra)


def has_joined(folder: Path) -> bool:
    """Return true if a node is a member: what says so is written last."""
    return (folder / "membership.json").exists()


def membership(folder: Path) -> Membership:
    """Read a node's membership.

    Raises:
        SettingsError: this node has not joined.
    """
    try:
        facts = json.loads((folder / "membership.json").read_text())
        return Membership(folder, facts["name"], facts["server"], int(facts["node_id"]))
    except (OSError, ValueError, KeyError):
        raise SettingsError(
            "Expected a node that has joined a federation, got none.", hint="Run: fedvault-node join INVITE"
        ) from None


def join(invite: Invite, folder: Path, server: Server, base: Path) -> Membership:
    """Use an invite: make a key, or keep the one that is here, have it signed, keep what is needed to come back.

    Guarantee: the node's private key is made here and never leaves.

    Raises:
        SettingsError: this node is a member already and was not invited back under its name, or the invite has expired.
        RunError: the server cannot be reached through TLS.
        PeerError: the server refuses the invite, or what it sends is no certificate of this node's key.
    """
    member = Membership(folder, invite.name, invite.server)
    if has_joined(folder) and not invite.renews:
        raise SettingsError("Expected a node without a federation, this one has joined.", hint="fedvault-node leave")
    if invite.renews:
        _check_invited_back(member)
    if invite.expires <= datetime.now(UTC):
        raise SettingsError(f"Expected a valid invite, this one expired {invite.expires:%Y-%m-%d %H:%M} UTC.")
    private_folder(folder)
    key = _made_key(member.key_path)
    # no certificate is shown: one that has ended would be refused
    try:
        context = tls_context(invite.authority, None, member.key_path, extra_ca=server.authority(base))
    except (ssl.SSLError, ValueError):
        raise SettingsError(
            "Expected the federation's certificate in the invite, got something else.",
            hint="Ask the server's operator for a new one.",
        ) from None
    body = {"token": invite.token, "csr": _request(key, invite.name)}
    answer = _posted(invite.server, ENROL_PATH, body, context, _proxy(server, base))
    certificate, facts = _certificate(answer, key), {"name": invite.name, "server": invite.server}
    # an invite of before a roll-over names the old authority alone; the server takes who joins for one that knows both
    authorities = _authorities(answer) or invite.authority.encode()
    facts["node_id"] = _number(answer)
    write_atomically(member.authority_path, authorities)
    write_atomically(member.certificate_path, certificate)
    write_atomically(folder / "membership.json", json.dumps(facts, indent=1).encode())
    return membership(folder)


def certificate_in_words(ends: datetime, now: datetime) -> str:
    """Return a sentence on when this node's certificate ends, or on what to do once it has."""
    if now >= ends:
        return f"This node's certificate ended {ends:%Y-%m-%d}. {INVITED_BACK}"
    return f"This node's certificate ends {ends:%Y-%m-%d}, in {(ends - now).days} days."


def leave(folder: Path) -> None:
    """Forget the federation: key, certificate, invite, messages that wait. Ledger and data stay."""
    shutil.rmtree(folder / "inbox", ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def left_over(folder: Path) -> bool:
    """Return true if an unfinished join left a key here."""
    return not (folder / "membership.json").exists() and (folder / "node.key").exists()


def _check_invited_back(member: Membership) -> None:
    if not member.key_path.exists():
        raise SettingsError(
            f"Expected this node's key in {member.key_path}, got nothing.",
            hint="It is in the node's backup. Without it, ask for an invite under another name.",
        )
    if (member.folder / "membership.json").exists() and (known := membership(member.folder)).name != member.name:
        raise SettingsError(f"Expected an invite for {known.name!r}, got one for {member.name!r}.")


def _made_key(path: Path) -> ec.EllipticCurvePrivateKey:
    # an earlier try that failed on the way to the server left a key that nobody knows: it is used
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private_once(path, pem)
    return Membership(path.parent, "", "").key()


def _request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA384())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(answer: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the certificate of an answer, if it is one of this key: another would shut this node out."""
    try:
        written = str(answer["certificate"]).encode()
        public = x509.load_pem_x509_certificate(written).public_key()
    except (KeyError, ValueError):
        raise PeerError("Expected a certificate from the server, got something else.") from None
    if public != key.public_key():
        raise PeerError("Expected a certificate of this node's key, got one of another.")
    return written


def _authorities(answer: dict[str, Any]) -> bytes:
    """Return the federation's authorities as an answer has them, if it does: an earlier server names none."""
    written = str(answer.get("authority", "")).encode()
    try:
        certificates = x509.load_pem_x509_certificates(written) if written else []
        signing = [one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for one in certificates]
    except (ValueError, x509.ExtensionNotFound):
        raise PeerError("Expected the federation's authorities from the server, got something else.") from None
    if not all(signing) or len(signing) > MOST_AUTHORITIES:
        raise PeerError("Expected the federation's authorities from the server, got other certificates.")
    return written


def _number(answer: dict[str, Any]) -> str:
    number = str(answer.get("node_id"))
    if not number.isdecimal():
        raise PeerError("Expected this node's number from the server, got something else.")
    return number


def _proxy(server: Server, base: Path) -> httpx.Proxy | None:
    return through(server.proxy, server.authority(base))


def _posted(
    server: str, path: str, body: dict[str, str], context: ssl.SSLContext, proxy: httpx.Proxy | None
) -> dict[str, Any]:
    try:
        with httpx.Client(verify=context, proxy=proxy, timeout=TIMEOUT_S) as client:
            response = client.post(f"https://{server}{path}", json=body)
    except httpx.HTTPError as error:
        raise RunError(
            f"Expected the server at {server} to answer, got: {error}.",
            hint="Is the address right and reachable, and the invite from this federation? Behind a proxy: [server].",
        ) from None
    if response.status_code != httpx.codes.OK:
        reason = response.text.strip()[:200]
        raise PeerError(
            f"Expected the server to let this node in, got {response.status_code}: {reason}",
            hint="Ask its operator for a new invite; before you use it: fedvault-node leave."
            if response.status_code == httpx.codes.FORBIDDEN
            else "",
        )
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise PeerError("Expected the server to answer in JSON, got something else.")
    return answer
