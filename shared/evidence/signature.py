"""Signing a statement with a node's or a server's own key, and saying whose it is: offline, for anyone."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.errors import PeerError, SettingsError

Usage = Literal["node", "server"]
USAGES = {"node": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True)
class Signer:
    """The owner of the key that signed a statement."""

    fingerprint: str
    """SHA-256 of the public key."""
    name: str = ""
    """What the federation's authority calls it; empty if nobody was asked."""


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half of a key as text."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()


def signed(content: bytes, key: ec.EllipticCurvePrivateKey) -> str:
    """Return the signature of some bytes, as text."""
    return base64.b64encode(key.sign(content, ec.ECDSA(hashes.SHA384()))).decode()


def check(content: bytes, public_key: str, signature: str, *, what: str) -> None:
    """Refuse bytes that this signature does not cover.

    Guarantee: of bytes and signature, one changed character is refused.

    Args:
        content: that was signed.
        public_key: PEM.
        signature: from `signed`.
        what: names the statement in errors.

    Raises:
        PeerError: the signature is of other bytes or of another key, or none.
    """
    try:
        public = serialization.load_pem_public_key(public_key.encode())
        raw = base64.b64decode(signature, validate=True)
    except (ValueError, TypeError, AttributeError, binascii.Error, UnsupportedAlgorithm):
        raise PeerError(f"Expected a {what}, got something else.") from None
    changed = f"Expected a {what} as it was signed, got a changed one."
    if base64.b64encode(raw).decode() != signature:  # base64 has spellings that decode to the same
        raise PeerError(changed)
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise PeerError(f"Expected a {what} signed with an elliptic-curve key, got another kind.")
    try:
        public.verify(raw, content, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise PeerError(changed) from None


def signer(
    public_key: str,
    certificate: str,
    issued: str,
    authority: bytes | None = None,
    *,
    usage: Usage | None = None,
    what: str,
) -> Signer:
    """Return whose key made a signature, as an authority says; without one, which key it is.

    Guarantee: a name is said of a signer only if the given authority certified that very key for it.

    Args:
        public_key: PEM, of a checked signature.
        certificate: PEM, of that key.
        issued: when the statement was made.
        authority: PEM certificate of the federation's authority, from somebody other than the statement's holder; all
            of them, where it was rolled over.
        usage: whose key it has to be; None for anybody's whom the authority certified.
        what: names the statement in errors.

    Raises:
        PeerError: the authority has not certified this key, not for this use, or not for the time of the statement.
        SettingsError: `authority` is no certificate.
    """
    key = serialization.load_pem_public_key(public_key.encode())
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(der).hexdigest()
    if authority is None:
        return Signer(fingerprint)
    try:
        trusted = x509.load_pem_x509_certificates(authority)
    except ValueError:
        raise SettingsError("Expected a certificate as the authority, got something else.") from None
    try:
        shown = x509.load_pem_x509_certificate(certificate.encode())
        _check_issued_by_one(shown, trusted)
        made, (name,) = datetime.fromisoformat(issued), shown.subject
        in_time = shown.not_valid_before_utc <= made <= shown.not_valid_after_utc
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise PeerError(
            "Expected a key that this authority certified, got another.",
            hint=f"Is the {what} of another federation? Its server's operator has that one's authority.crt.",
        ) from None
    if shown.public_key() != key or not in_time:
        raise PeerError(f"Expected the certificate of the very key, and of the {what}'s time, got another.")
    if usage is not None and not _serves(shown, usage):
        raise PeerError(f"Expected a {what} signed by a {usage}, got one that somebody else of its federation signed.")
    return Signer(fingerprint, str(name.value))


def _serves(certificate: x509.Certificate, usage: Usage) -> bool:
    try:
        return USAGES[usage] in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False


def _check_issued_by_one(certificate: x509.Certificate, authorities: list[x509.Certificate]) -> None:
    for number, authority in enumerate(authorities, start=1):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            if number == len(authorities):
                raise
        else:
            return
