"""A receipt: what one run cost one node's records, signed with the node's key, checked by anyone, offline."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import PeerError, SettingsError
from shared.evidence.signature import Signer, check, public_pem, signed
from shared.evidence.signature import signer as signer_of
from shared.privacy.accounting import epsilon_if_colluding, epsilon_rdp
from shared.privacy.releases import LargestSide, Release, SharedGaussian, Spending, from_dict

TOLERANCE = 1e-9
FIRST_VERSION, VERSION, SHARED_NOISE, EVALUATED, SHARED_AND_EVALUATED = 1, 2, 3, 4, 5
"""2: the node's certificate is in the receipt. 3, of shared noise alone: epsilon if all others collude. 4, of runs with
evaluations alone: what these released. 5, of shared noise and evaluations: both."""
SHARED, WITH_EVALUATION = (SHARED_NOISE, SHARED_AND_EVALUATED), (EVALUATED, SHARED_AND_EVALUATED)
ONLY_IN = {
    "epsilon_if_all_collude": SHARED,
    "evaluation": WITH_EVALUATION,
    "evaluations_paid": WITH_EVALUATION,
    "pays_for_both_sides": WITH_EVALUATION,
}
"""Fields that receipts of some versions have, and no others."""


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
    evaluation: dict[str, Any] | None = None
    """All that evaluations on held-out records released together; None where the run has none."""
    evaluations_paid: tuple[int, ...] = ()
    """After which rounds; also those whose counts were lost."""
    pays_for_both_sides: bool = False
    """True if a record may be trained on and held out: epsilon is then the sum of both, and else the larger one."""

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
        version = self.fedvault_receipt
        return {name: value for name, value in asdict(self).items() if version in ONLY_IN.get(name, (version,))}


def sign(stated: Receipt, key: ec.EllipticCurvePrivateKey, certificate: str) -> Receipt:
    """Put the node's key, its certificate and a signature under a statement."""
    receipt = replace(stated, public_key=public_pem(key), certificate=certificate, signature="")
    return replace(receipt, signature=signed(receipt.signed_bytes(), key))


def read_statement(written: str) -> Receipt:
    """Read an unsigned receipt that was made in another process.

    Raises:
        PeerError: it is something else, is signed already, or its epsilon does not follow from its release.
    """
    stated, release = _read(written)
    if stated.public_key or stated.signature:
        raise PeerError("Expected a statement without a signature, got a signed one.")
    _check_arithmetic(stated, *release)
    return stated


def signer(receipt: Receipt, authority: bytes | None = None) -> Signer:
    """Return whose key a verified receipt is signed with, as an authority says; without one, which key it is.

    Raises:
        PeerError: the authority has not certified this key, or not for the time of the receipt.
        SettingsError: `authority` is no certificate.
    """
    return signer_of(receipt.public_key, receipt.certificate, receipt.issued, authority, what="receipt")


def verify(written: str) -> Receipt:
    """Check signature and arithmetic of a receipt; `signer` says whose it is.

    Guarantee: a receipt with one changed character, or with an epsilon that its noise does not give, is refused.

    Raises:
        PeerError: it is no receipt, the signature does not match, or epsilon does not follow from the release.
    """
    receipt, release = _read(written)
    if not isinstance(receipt.public_key, str) or not isinstance(receipt.signature, str):
        raise PeerError("Expected a receipt, got something else.")
    check(receipt.signed_bytes(), receipt.public_key, receipt.signature, what="receipt")
    _check_arithmetic(receipt, *release)
    return receipt


def _read(written: str) -> tuple[Receipt, tuple[Release, Release | None]]:
    try:
        plain = json.loads(written)
        numbers = {"rounds_paid": tuple(plain["rounds_paid"])}
        numbers |= {"evaluations_paid": tuple(plain["evaluations_paid"])} if "evaluations_paid" in plain else {}
        receipt = Receipt(**{**plain, **numbers})
        evaluation = None if receipt.evaluation is None else from_dict(receipt.evaluation)
        if type(receipt.fedvault_receipt) is not int or not isinstance(receipt.epsilon_if_all_collude, float | None):
            raise TypeError
        return receipt, (from_dict(receipt.release), evaluation)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SettingsError):
        raise PeerError("Expected a receipt, got something else.") from None


def receipt_version(*, shared: bool, evaluates: bool) -> int:
    """Return the version of the format that a run's receipt has."""
    if evaluates:
        return SHARED_AND_EVALUATED if shared else EVALUATED
    return SHARED_NOISE if shared else VERSION


def if_all_collude(spending: Spending, delta: float) -> float:
    """Return what releases of shared noise cost if all other nodes collude."""
    return epsilon_if_colluding([spending], delta) if spending.count else 0.0


def spent(trained: Release, evaluated: Release | None, *, both_sides: bool) -> Spending:
    """Return what training and evaluations of one run cost a unit: its own side, or both."""
    sides = tuple((side,) for side in (trained, evaluated) if side is not None and side.count)
    if len(sides) < 2:
        return trained if evaluated is None or trained.count else evaluated
    return LargestSide((sum(sides, ()),) if both_sides else sides)


def _check_arithmetic(receipt: Receipt, release: Release, evaluation: Release | None) -> None:
    if (evaluation is not None) != (receipt.fedvault_receipt in WITH_EVALUATION):
        raise PeerError("Expected what evaluations released in a receipt of a run that has some, and in no other.")
    paid = receipt.rounds_paid or receipt.evaluations_paid
    total = spent(release, evaluation, both_sides=receipt.pays_for_both_sides)
    epsilon = epsilon_rdp([total], receipt.delta) if paid else 0.0
    if abs(epsilon - receipt.epsilon) > TOLERANCE:
        raise PeerError(
            f"Expected epsilon {epsilon:.6f} from the stated noise, the receipt says {receipt.epsilon:.6f}."
        )
    shared = isinstance(release, SharedGaussian)
    if shared != (receipt.fedvault_receipt in SHARED) or shared != (receipt.epsilon_if_all_collude is not None):
        raise PeerError("Expected what all other nodes could see beside shared noise, and beside no other.")
    if shared and abs(if_all_collude(total, receipt.delta) - (receipt.epsilon_if_all_collude or 0.0)) > TOLERANCE:
        raise PeerError("Expected epsilon_if_all_collude from the stated noise, the receipt says another.")
