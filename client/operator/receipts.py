"""A receipt: what one run cost one node's records, signed with the node's key, checked by anyone, offline."""

import base64
import binascii
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.vault.ledger.ledger import Ledger
from shared.errors import PeerError, SettingsError
from shared.privacy.accounting import epsilon_if_colluding, epsilon_rdp
from shared.privacy.releases import Release, SharedGaussian, SubsampledGaussian, from_dict, times, to_dict

TOLERANCE = 1e-9
FIRST_VERSION, VERSION, SHARED_NOISE = 1, 2, 3
"""2: the node's certificate is in the receipt. 3, of shared noise alone: epsilon if all others collude."""


@dataclass(frozen=True)
class Receipt:
    """All that was released in a run; names no dataset and no number of records."""

    fedvault_receipt: int
    """Version of this format."""
    run: str
    study_sha256: str
    rounds_paid: tuple[int, ...]
    """Every round that was charged, also those whose update was lost."""
    release: dict[str, Any]
    """All of them together: mechanism, noise multiplier, sampling rate, steps, sensitivity."""
    epsilon: float
    delta: float
    ledger_height: int
    ledger_head: str
    issued: str
    public_key: str
    signature: str = ""
    certificate: str = ""
    """Of that key, by the federation's authority: says whose it is."""
    epsilon_if_all_collude: float | None = None
    """If all other nodes of a run with shared noise pool what they know; None where all noise was this node's own."""

    def signed_bytes(self) -> bytes:
        """Return the bytes that the signature covers."""
        plain = {name: value for name, value in self._plain().items() if name != "signature"}
        if self.fedvault_receipt == FIRST_VERSION:
            del plain["certificate"]
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()

    def as_json(self) -> str:
        """Return the receipt as a file holds it."""
        return json.dumps(self._plain(), indent=1) + "\n"

    def _plain(self) -> dict[str, Any]:
        shared = self.fedvault_receipt >= SHARED_NOISE
        return {name: value for name, value in asdict(self).items() if shared or name != "epsilon_if_all_collude"}


def statement(ledger: Ledger, run: str) -> Receipt:
    """Return what the ledger says of a run, unsigned: for a vault that has no key.

    Raises:
        SettingsError: the ledger does not know it.
    """
    approved = ledger.state.runs.get(run)
    if approved is None:
        names = ", ".join(ledger.state.runs) or "none"
        raise SettingsError(f"Expected a run of the ledger ({names}), got {run!r}.")
    per_round = approved.per_round
    if not isinstance(per_round, SubsampledGaussian):
        raise SettingsError(f"Expected a run of subsampled Gaussian steps, got {type(per_round).__name__}.")
    rounds, limit = tuple(sorted(approved.attempts)), ledger.state.budget(approved.dataset).limit
    total_release = times(per_round, len(rounds))
    shared = isinstance(total_release, SharedGaussian)
    return Receipt(
        fedvault_receipt=SHARED_NOISE if shared else VERSION,
        run=run,
        study_sha256=approved.study_sha256,
        rounds_paid=rounds,
        release=to_dict(total_release),
        epsilon=epsilon_rdp([total_release], limit.delta) if rounds else 0.0,
        delta=limit.delta,
        ledger_height=ledger.height,
        ledger_head=ledger.head,
        issued=datetime.now(UTC).isoformat(timespec="seconds"),
        public_key="",
        epsilon_if_all_collude=_if_all_collude(total_release, limit.delta) if shared else None,
    )


def sign(stated: Receipt, key: ec.EllipticCurvePrivateKey, certificate: str) -> Receipt:
    """Put the node's key, its certificate and a signature under a statement."""
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    receipt = replace(stated, public_key=public.decode(), certificate=certificate, signature="")
    signature = key.sign(receipt.signed_bytes(), ec.ECDSA(hashes.SHA384()))
    return replace(receipt, signature=base64.b64encode(signature).decode())


def read_statement(written: str) -> Receipt:
    """Read what `statement` gave in another process.

    Raises:
        PeerError: it is something else, is signed already, or its epsilon does not follow from its release.
    """
    stated, release = _read(written)
    if stated.public_key or stated.signature:
        raise PeerError("Expected a statement without a signature, got a signed one.")
    _check_arithmetic(stated, release)
    return stated


@dataclass(frozen=True)
class Signer:
    """The owner of the key that signed a receipt."""

    fingerprint: str
    """SHA-256 of the public key."""
    name: str = ""
    """What the federation's authority calls the node; empty if nobody was asked."""


def signer(receipt: Receipt, authority: bytes | None = None) -> Signer:
    """Return whose key a receipt is signed with, as an authority says; without one, which key it is.

    Guarantee: a name is said of a signer only if the given authority certified that very key for it.

    Args:
        receipt: verified.
        authority: PEM certificate of the federation's authority, from somebody other than the receipt's holder; all of
            them, where it was rolled over.

    Raises:
        PeerError: the authority has not certified this key, or not for the time of the receipt.
        SettingsError: `authority` is no certificate.
    """
    key = serialization.load_pem_public_key(receipt.public_key.encode())
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(der).hexdigest()
    if authority is None:
        return Signer(fingerprint)
    try:
        trusted = x509.load_pem_x509_certificates(authority)
    except ValueError:
        raise SettingsError("Expected a certificate as the authority, got something else.") from None
    try:
        certificate = x509.load_pem_x509_certificate(receipt.certificate.encode())
        _check_issued_by_one(certificate, trusted)
        issued, (name,) = datetime.fromisoformat(receipt.issued), certificate.subject
        in_time = certificate.not_valid_before_utc <= issued <= certificate.not_valid_after_utc
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise PeerError("Expected a key that this authority certified, got another.") from None
    if certificate.public_key() != key or not in_time:
        raise PeerError("Expected the certificate of the very key, and of the receipt's time, got another.")
    return Signer(fingerprint, str(name.value))


def _check_issued_by_one(certificate: x509.Certificate, authorities: list[x509.Certificate]) -> None:
    for number, authority in enumerate(authorities, start=1):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            if number == len(authorities):
                raise
        else:
            return


def verify(written: str) -> Receipt:
    """Check signature and arithmetic of a receipt; `signer` says whose it is.

    Guarantee: a receipt with one changed character, or with an epsilon that its noise does not give, is refused.

    Raises:
        PeerError: it is no receipt, the signature does not match, or epsilon does not follow from the release.
    """
    receipt, release = _read(written)
    try:
        public = serialization.load_pem_public_key(receipt.public_key.encode())
        signature = base64.b64decode(receipt.signature, validate=True)
    except (ValueError, TypeError, AttributeError, binascii.Error, UnsupportedAlgorithm):
        raise PeerError("Expected a receipt, got something else.") from None
    if base64.b64encode(signature).decode() != receipt.signature:  # base64 has spellings that decode to the same
        raise PeerError("Expected a receipt as it was signed, got a changed one.")
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise PeerError("Expected a receipt signed with an elliptic-curve key, got another kind.")
    try:
        public.verify(signature, receipt.signed_bytes(), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise PeerError("Expected a receipt as it was signed, got a changed one.") from None
    _check_arithmetic(receipt, release)
    return receipt


def _read(written: str) -> tuple[Receipt, Release]:
    try:
        plain = json.loads(written)
        receipt = Receipt(**{**plain, "rounds_paid": tuple(plain["rounds_paid"])})
        if type(receipt.fedvault_receipt) is not int or not isinstance(receipt.epsilon_if_all_collude, float | None):
            raise TypeError
        return receipt, from_dict(receipt.release)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SettingsError):
        raise PeerError("Expected a receipt, got something else.") from None


def _if_all_collude(release: Release, delta: float) -> float:
    return epsilon_if_colluding([release], delta) if release.count else 0.0


def _check_arithmetic(receipt: Receipt, release: Release) -> None:
    epsilon = epsilon_rdp([release], receipt.delta) if receipt.rounds_paid else 0.0
    if abs(epsilon - receipt.epsilon) > TOLERANCE:
        raise PeerError(
            f"Expected epsilon {epsilon:.6f} from the stated noise, the receipt says {receipt.epsilon:.6f}."
        )
    shared = isinstance(release, SharedGaussian)
    if shared != (receipt.fedvault_receipt >= SHARED_NOISE) or shared != (receipt.epsilon_if_all_collude is not None):
        raise PeerError("Expected what all other nodes could see beside shared noise, and beside no other.")
    if shared and abs(_if_all_collude(release, receipt.delta) - (receipt.epsilon_if_all_collude or 0.0)) > TOLERANCE:
        raise PeerError("Expected epsilon_if_all_collude from the stated noise, the receipt says another.")
