"""A node's keys for one run: X25519 for secrets with each peer, Ed25519 to sign survivors. They stay in the vault."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from shared.secure_sum.encoding import Kind, Reader, head
from shared.secure_sum.refusals import Refusal, SecureSumError

RAW_KEY_BYTES = 32
SIGNATURE_BYTES = 64


class PublicKeys(NamedTuple):
    """The public halves, 32 bytes each."""

    exchange: bytes
    signing: bytes


@dataclass(frozen=True)
class RunKeys:
    """Both private keys. Whoever has them can take this node's part: keep them out of backups, erase them with the run.

    Guarantee: private keys do not show in a repr.
    """

    exchange: X25519PrivateKey = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make keys for one run."""
        return cls(X25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.RUN_KEYS, most_bytes=len(head(Kind.RUN_KEYS)) + 2 * RAW_KEY_BYTES)
        exchange, signing = reader.take(RAW_KEY_BYTES), reader.take(RAW_KEY_BYTES)
        reader.end()
        return cls(X25519PrivateKey.from_private_bytes(exchange), Ed25519PrivateKey.from_private_bytes(signing))

    def to_bytes(self) -> bytes:
        """Return both private keys, for the vault's own storage."""
        return head(Kind.RUN_KEYS) + self.exchange.private_bytes_raw() + self.signing.private_bytes_raw()

    @property
    def public(self) -> PublicKeys:
        """The public halves."""
        return PublicKeys(self.exchange.public_key().public_bytes_raw(), self.signing.public_key().public_bytes_raw())

    def secret_with(self, exchange: bytes) -> bytes:
        """Return the secret shared with the owner of a public X25519 key.

        Raises:
            SecureSumError: the key is none, or has so small an order that the secret would be zero.
        """
        try:
            return self.exchange.exchange(X25519PublicKey.from_public_bytes(exchange))
        except ValueError:
            raise SecureSumError(Refusal.ROSTER_KEY) from None

    def sign(self, statement: bytes) -> bytes:
        """Sign with Ed25519; the same statement always gets the same signature."""
        return self.signing.sign(statement)


def signed_by(signing: bytes, signature: bytes, statement: bytes) -> bool:
    """Return true if the owner of a public Ed25519 key signed a statement."""
    try:
        Ed25519PublicKey.from_public_bytes(signing).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True
