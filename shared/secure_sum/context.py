"""What one secure sum is of: run, study, round, adapter, roster and purpose, in every key, commitment and signature.

Without the adapter's digest a server could give all nodes but one an adapter of vanishing gradients (Pasquini et al.
2022, arXiv:2111.07380). Without names a colluder who registers another's key would derive that one's masks.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.secure_sum.encoding import PROTOCOL, joined, malformed

Purpose = Literal["training", "evaluation"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
MOST_ROUND = 2**32
KEY_BYTES = DIGEST_BYTES = 32


@dataclass(frozen=True)
class RoundContext:
    """The one sum that a message belongs to.

    Guarantee: two contexts that differ in any field share no key, no commitment and no signature.

    Raises:
        SecureSumError: there is no such round or purpose.
    """

    run: str
    study_sha256: str
    round: int
    adapter_sha256: str
    roster_sha256: str
    purpose: Purpose = "training"

    def __post_init__(self) -> None:
        if not 0 <= self.round < MOST_ROUND:
            raise malformed("a round")
        purpose_of(self.purpose)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over all fields, each with its length."""
        fields = (self.run, self.study_sha256, self.round, self.adapter_sha256, self.roster_sha256, self.purpose)
        return hashlib.sha256(joined(PROTOCOL, "context", *fields)).digest()

    def statement(self, label: str, *fields: bytes | str) -> bytes:
        """Return bytes that mean `label` and the fields in this context, and nothing else."""
        return joined(PROTOCOL, label, self.digest, *fields)

    def derive(self, secret: bytes, label: str, *fields: bytes | str) -> bytes:
        """Derive a key of 32 bytes for one use from a secret (HKDF-SHA256, RFC 5869)."""
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=self.statement(label, *fields)).derive(secret)

    def hashed(self, label: str, *fields: bytes | str) -> bytes:
        """Return the SHA-256 of a statement."""
        return hashlib.sha256(self.statement(label, *fields)).digest()


def purpose_of(text: str) -> Purpose:
    """Read a purpose.

    Raises:
        SecureSumError: there is no such purpose.
    """
    for purpose in PURPOSES:
        if text == purpose:
            return purpose
    raise malformed(f"one of the purposes {', '.join(PURPOSES)}")
