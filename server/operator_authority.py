"""The authority of operators' certificates: one of its own, which neither nodes nor auditors ever trust.

A certificate of it opens the server's page through the gateway, and nothing else. It bears a mark as well, a URI among
its names, so that whoever reads certificates by key alone can tell an operator's from a node's.

Guarantee: no certificate of an operator is taken for a node's, and none of a node's for an operator's.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.certificate_authority import AUTHORITY_LIFETIME, certificate_builder, key_usage
from shared.errors import SettingsError
from shared.files import private_folder, write_private_once

FILE = "operators.pem"
"""Key and certificate of the authority: one file, so that of two processes that make it one wins, whole."""
MARK = "urn:fedvault:operator"
SUBJECT = "FedVault operators"
REMEMBERED = 256


@dataclass(frozen=True)
class NewCertificate:
    """An operator's certificate with its key, which nothing here keeps."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def serial(self) -> str:
        """Return its serial number, by which it is listed and revoked."""
        return f"{self.certificate.serial_number:x}"

    def as_pem(self) -> bytes:
        """Return key and certificate as text."""
        return _pem_of(self.key) + self.certificate.public_bytes(serialization.Encoding.PEM)

    def as_pkcs12(self, passphrase: str) -> bytes:
        """Return both as a file that a browser imports, under a passphrase."""
        name = f"FedVault operator {self.name}".encode()
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
        return pkcs12.serialize_key_and_certificates(name, self.key, self.certificate, None, encryption)


def operators_authority(keys: Path) -> str:
    """Return the certificate of the operators' authority as PEM; it is made at first use.

    Raises:
        SettingsError: its file cannot be read.
    """
    return _authority(keys)[1].public_bytes(serialization.Encoding.PEM).decode()


def issue(keys: Path, name: str, lifetime: timedelta, *, now: datetime | None = None) -> NewCertificate:
    """Make a key and a certificate for an operator.

    Raises:
        SettingsError: the authority cannot be read, or it ends before the certificate would.
    """
    (signing, signer), moment = _authority(keys), now or datetime.now(UTC)
    if signer.not_valid_after_utc < moment + lifetime:
        raise SettingsError(
            f"Expected an operators' authority beyond the certificate's end, it ends {signer.not_valid_after_utc:%F}.",
            hint=f"Move {keys / FILE} away, halt and start the server, and issue all operators' certificates anew.",
        )
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = certificate_builder(subject, signer.subject, key.public_key(), signing.public_key(), moment, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    mark = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(MARK)])
    builder = builder.add_extension(mark, critical=False).add_extension(key_usage(), critical=True)
    return NewCertificate(name, key, builder.sign(signing, hashes.SHA384()))


def bears_mark(certificate: x509.Certificate) -> bool:
    """Return true for a certificate that says it is an operator's."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return MARK in names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        return False


@lru_cache(maxsize=REMEMBERED)
def operators_certificate(certificate: bytes, authority: str) -> x509.Certificate | None:
    """Return a certificate (DER) as an operator's; None if the authority (PEM) did not sign it, or it bears no mark."""
    shown = x509.load_der_x509_certificate(certificate)
    try:
        shown.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
        return shown if bears_mark(shown) else None
    except (ValueError, TypeError, InvalidSignature):
        return None


def _authority(keys: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    path = keys / FILE
    if not path.exists():
        private_folder(keys)
        write_private_once(path, _new_authority(datetime.now(UTC)))
    with suppress(OSError, ValueError, TypeError):
        content = path.read_bytes()
        key, certificate = serialization.load_pem_private_key(content, None), x509.load_pem_x509_certificate(content)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key, certificate
    raise SettingsError(
        f"Expected the operators' authority at {path}, got nothing that can be read.",
        hint="Restore it from a backup. Or move it away: a new one is made, and all operators need new certificates.",
    )


def _new_authority(now: datetime) -> bytes:
    key, subject = (
        ec.generate_private_key(ec.SECP384R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT)]),
    )
    builder = certificate_builder(subject, subject, key.public_key(), key.public_key(), now, AUTHORITY_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(signs_certificates=True), critical=True)
    certificate = builder.sign(key, hashes.SHA384())
    return _pem_of(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
