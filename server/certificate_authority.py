"""The federation's own certificate authority: kept on the server, known to nodes by their invite.

It lasts ten years and is rolled over before: `roll_over` makes a second one, which signs the nodes' certificates from
then on, while the server still shows a certificate of the first, which every node trusts. Nodes learn the second one
when they renew. `finish_roll_over` gives the server a certificate of the second one and deletes the first one's key.
An authority is trusted for as long as its key is here; its certificate stays for receipts.
"""

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import SettingsError
from shared.files import private_folder, sync_folder, write_atomically, write_key_pair

AUTHORITY_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = NODE_LIFETIME = timedelta(days=397)
CLOCK_SKEW = timedelta(minutes=10)
AUTHORITY, SERVER = "authority", "server"
LATER_AUTHORITY = re.compile(rf"{AUTHORITY}(?:-(\d+))?")


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both as files."""

    certificate: Path
    key: Path

    @property
    def expires(self) -> datetime:
        """Return the end of its validity."""
        return _read(self.certificate).not_valid_after_utc


def create(folder: Path, name: str, *, now: datetime | None = None) -> Issued:
    """Make a certificate authority in an empty folder.

    Guarantee: private keys are readable by their owner alone from the moment they exist.

    Raises:
        SettingsError: there is one already; a second one would lock every node out.
    """
    issued = _paths(folder, AUTHORITY)
    if issued.key.exists() or issued.certificate.exists():
        raise SettingsError(f"Expected a folder without an authority, {folder} holds one.", hint="Keep it, or move it.")
    private_folder(folder)
    _make_authority(issued, _name(name), now or datetime.now(UTC))
    return issued


def authorities(folder: Path) -> list[Issued]:
    """Return the authorities that are trusted, the oldest first: one, or two while it is rolled over.

    Raises:
        SettingsError: there is none.
    """
    keys = sorted((key for key in folder.glob("*.key") if _generation(key)), key=_generation)
    # a crash while one was made may have left a key alone
    complete = [issued for key in keys if (issued := _paths(folder, key.stem)).certificate.exists()]
    if not complete:
        raise SettingsError(f"Expected an authority in {folder}, got none.", hint="Run: fedvault-server init")
    return complete


def trusted_authorities(folder: Path) -> str:
    """Return the certificates of all trusted authorities as PEM, the newest first."""
    return "".join(issued.certificate.read_text() for issued in reversed(authorities(folder)))


def roll_over(folder: Path, *, now: datetime | None = None) -> Issued:
    """Make the authority that follows: it signs nodes' certificates from now on, and the old one is still trusted.

    Guarantee: while an authority is rolled over, certificates of the old one and of the new one are both accepted.

    Raises:
        SettingsError: there is no authority, or it is being rolled over already.
    """
    (old, *more) = authorities(folder)
    if more:
        raise SettingsError(
            "Expected an authority that is not being rolled over, this one is.",
            hint="Once every node has renewed its certificate: fedvault-server renew --finish",
        )
    number = 1 + max(_generation(path) for path in folder.glob("*.crt"))
    issued = _paths(folder, f"{AUTHORITY}-{number}")
    _make_authority(issued, _read(old.certificate).subject, now or datetime.now(UTC))
    return issued


def finish_roll_over(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> Issued:
    """Give the server a certificate of the new authority, and trust the old one no more; returns the certificate.

    Raises:
        SettingsError: no authority is being rolled over.
    """
    *old, new = authorities(folder)
    if not old:
        raise SettingsError(
            "Expected an authority that is being rolled over, this one is not.",
            hint="It begins with: fedvault-server renew --authority",
        )
    issued = _issue_server(folder, new, hosts, now or datetime.now(UTC), SERVER_LIFETIME)
    for authority in old:
        authority.key.unlink()
    sync_folder(folder)
    return issued


def issue_server(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> Issued:
    """Make, or renew, the server's certificate for its host names and addresses.

    Raises:
        SettingsError: no authority in the folder, it is about to end, or no hosts.
    """
    if not hosts:
        raise SettingsError("Expected at least one host name or address for the server's certificate, got none.")
    moment, (authority, *newer) = now or datetime.now(UTC), authorities(folder)
    lifetime = min(SERVER_LIFETIME, authority.expires - moment) if newer else SERVER_LIFETIME
    if lifetime <= timedelta(0) or authority.expires < moment + lifetime:
        raise SettingsError(
            f"Expected an authority beyond the new certificate's end, it ends {authority.expires:%Y-%m-%d}.",
            hint=f"Roll it over: fedvault-server renew --{'finish' if newer else 'authority'}",
        )
    return _issue_server(folder, authority, hosts, moment, lifetime)


def _issue_server(
    folder: Path, authority: Issued, hosts: Sequence[str], moment: datetime, lifetime: timedelta
) -> Issued:
    signer, signing = _read(authority.certificate), _read_key(authority.key)
    key = ec.generate_private_key(ec.SECP384R1())
    builder = certificate_builder(
        _name(hosts[0]), signer.subject, key.public_key(), signing.public_key(), moment, lifetime
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(key_usage(), critical=True)
    issued = _paths(folder, SERVER)
    _write(issued, key, builder.sign(signing, hashes.SHA384()))
    return issued


def server_identity(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """Return the server's own key and its certificate as PEM, to sign what it states.

    Raises:
        SettingsError: there is none.
    """
    issued = _paths(folder, SERVER)
    return _read_key(issued.key), issued.certificate.read_text()


def issue_node(folder: Path, name: str, request: bytes, *, now: datetime | None = None) -> bytes:
    """Sign a node's own key; the private key never leaves the node, whose request proves that it has it.

    Args:
        folder: of the authority.
        name: of the node.
        request: PEM certificate signing request.

    Returns:
        PEM certificate for TLS clients.

    Raises:
        SettingsError: no authority in the folder, it is about to end, or the request is not signed by its own key.
    """
    authority, moment = authorities(folder)[-1], now or datetime.now(UTC)
    signer, signing, key = _read(authority.certificate), _read_key(authority.key), requested_key(request)
    if authority.expires < moment + NODE_LIFETIME:
        raise SettingsError(
            f"Expected an authority beyond the certificate's end, it ends {authority.expires:%Y-%m-%d}.",
            hint="Roll it over: fedvault-server renew --authority",
        )
    builder = certificate_builder(_name(name), signer.subject, key, signing.public_key(), moment, NODE_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    builder = builder.add_extension(key_usage(), critical=True)
    return builder.sign(signing, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def keep_node_certificate(folder: Path, name: str, certificate: bytes) -> None:
    """Keep the newest certificate of a node, to tell when it ends and whether the node knows a new authority."""
    place = _of_node(folder, name)
    private_folder(place.parent)
    write_atomically(place, certificate)


def node_certificate_ends(folder: Path, name: str) -> datetime | None:
    """Return the end of a node's newest certificate; None if an earlier version issued it and kept no copy."""
    place = _of_node(folder, name)
    return _read(place).not_valid_after_utc if place.exists() else None


def knows_newest_authority(folder: Path, name: str) -> bool:
    """Return true if a node's newest certificate is of the newest authority: the node heard of it with it."""
    place = _of_node(folder, name)
    try:
        _read(place).verify_directly_issued_by(_read(authorities(folder)[-1].certificate))
    except (SettingsError, ValueError, TypeError, InvalidSignature):
        return False
    return True


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate signing request.

    Raises:
        SettingsError: it is none, its signature is wrong, or its key is not an elliptic-curve key on P-384.
    """
    try:
        parsed = x509.load_pem_x509_csr(request)
        valid, key = parsed.is_signature_valid, parsed.public_key()
    except (ValueError, TypeError):
        raise SettingsError("Expected a certificate signing request, got something else.") from None
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SettingsError("Expected a request signed by its own key on P-384, got another.")
    return key


def public_pem(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as text, which identifies a node in the run store and in Flower."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _make_authority(issued: Issued, subject: x509.Name, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    builder = certificate_builder(subject, subject, key.public_key(), key.public_key(), now, AUTHORITY_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(signs_certificates=True), critical=True)
    _write(issued, key, builder.sign(key, hashes.SHA384()))


def _generation(path: Path) -> int:
    """Return which authority a file is of, counted from 1; 0 if it is of none."""
    named = LATER_AUTHORITY.fullmatch(path.stem)
    return int(named.group(1) or 1) if named else 0


def _of_node(folder: Path, name: str) -> Path:
    # a node's name is the operator's choice and may not become a path
    return folder / "nodes" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.crt"


def _paths(folder: Path, name: str) -> Issued:
    return Issued(folder / f"{name}.crt", folder / f"{name}.key")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def certificate_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signed_by: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    """Return the beginning of a certificate of ours."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by), critical=False)
    )


def key_usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    """Return what a certificate's key is for: to sign certificates, or else to sign in TLS."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(issued: Issued, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_key_pair((issued.key, pem), (issued.certificate, certificate.public_bytes(serialization.Encoding.PEM)))


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise SettingsError(f"Expected a certificate at {path}, got none that can be read.") from None


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        raise SettingsError(f"Expected a private key at {path}, got none that can be read.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"Expected an elliptic-curve key at {path}, got another kind.")
    return key
