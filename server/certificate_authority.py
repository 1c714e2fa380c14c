"""The federation's own certificate authority: made once, kept on the server, known to nodes by their invite."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import SettingsError
from shared.files import write_key_pair

AUTHORITY_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = NODE_LIFETIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=10)
AUTHORITY, SERVER = "authority", "server"


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both as files."""

    certificate: Path
    key: Path

    @property
    def expires(self) -> datetime:
        """Return the end of its validity."""
        return _read(self.certificate).not_valid_after_utc

    def due(self, now: datetime) -> bool:
        """Return whether it should be renewed."""
        return now >= self.expires - RENEW_BEFORE


def create(folder: Path, name: str, *, now: datetime | None = None) -> Issued:
    """Make a certificate authority in an empty folder.

    Guarantee: private keys are readable by their owner alone from the moment they exist.

    Raises:
        SettingsError: there is one already; a second one would lock every node out.
    """
    issued = _paths(folder, AUTHORITY)
    if issued.key.exists() or issued.certificate.exists():
        raise SettingsError(f"Expected a folder without an authority, {folder} holds one.", hint="Keep it, or move it.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, subject = ec.generate_private_key(ec.SECP384R1()), _name(name)
    builder = _builder(
        subject, subject, key.public_key(), key.public_key(), now or datetime.now(UTC), AUTHORITY_LIFETIME
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    _write(issued, key, builder.sign(key, hashes.SHA384()))
    return issued


def issue_server(folder: Path, hosts: Sequence[str], *, now: datetime | None = None) -> Issued:
    """Make, or renew, the server's certificate for its host names and addresses.

    Raises:
        SettingsError: no authority in the folder, it is about to end, or no hosts.
    """
    if not hosts:
        raise SettingsError("Expected at least one host name or address for the server's certificate, got none.")
    authority, moment = _paths(folder, AUTHORITY), now or datetime.now(UTC)
    if not authority.key.exists():
        raise SettingsError(f"Expected an authority in {folder}, got none.", hint="Run: fedvault-server init")
    if authority.expires < moment + SERVER_LIFETIME:
        raise SettingsError(
            f"Expected an authority beyond the new certificate's end, it ends {authority.expires:%Y-%m-%d}.",
            hint="Make a new authority and invite the nodes again.",
        )
    signer, signing = _read(authority.certificate), _read_key(authority.key)
    key = ec.generate_private_key(ec.SECP384R1())
    builder = _builder(_name(hosts[0]), signer.subject, key.public_key(), signing.public_key(), moment, SERVER_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    issued = _paths(folder, SERVER)
    _write(issued, key, builder.sign(signing, hashes.SHA384()))
    return issued


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
    authority, moment = _paths(folder, AUTHORITY), now or datetime.now(UTC)
    signer, signing, key = _read(authority.certificate), _read_key(authority.key), requested_key(request)
    if authority.expires < moment + NODE_LIFETIME:
        raise SettingsError(
            f"Expected an authority beyond the certificate's end, it ends {authority.expires:%Y-%m-%d}."
        )
    builder = _builder(_name(name), signer.subject, key, signing.public_key(), moment, NODE_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    return builder.sign(signing, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


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


def _paths(folder: Path, name: str) -> Issued:
    return Issued(folder / f"{name}.crt", folder / f"{name}.key")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signed_by: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
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


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
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
