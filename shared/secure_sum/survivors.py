"""The set U of nodes whose vectors are summed, each with the digest of what it sent; nodes sign it before it opens.

A node signs one set a round and purpose. Two sets with t signatures each would need 2 t <= n + c, which the thresholds
rule out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from shared.secure_sum.context import DIGEST_BYTES, RoundContext
from shared.secure_sum.encoding import MOST_NODES, Reader, counted, joined, malformed
from shared.secure_sum.keys import RunKeys, signed_by
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.roster import Roster


@dataclass(frozen=True)
class Survivors:
    """U: names that ascend, and the SHA-256 of each one's masked message."""

    digests: Mapping[str, bytes]

    @classmethod
    def of(cls, digests: Mapping[str, bytes]) -> Self:
        """Make the set of some nodes, in any order."""
        return cls({name: digests[name] for name in sorted(digests, key=str.encode)})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names, ascending."""
        return tuple(self.digests)

    def sha256(self, context: RoundContext) -> str:
        """Return the hex SHA-256 of the set in its context: what a node writes down before it signs."""
        return hashlib.sha256(self.statement(context)).hexdigest()

    def statement(self, context: RoundContext) -> bytes:
        """Return what nodes sign."""
        return context.statement("survivors", self.to_bytes())

    def sign(self, keys: RunKeys, context: RoundContext) -> bytes:
        """Return a node's signature on the set."""
        return keys.sign(self.statement(context))

    def is_signed(self, signature: bytes, signing: bytes, context: RoundContext) -> bool:
        """Return true if the owner of a public Ed25519 key signed the set."""
        return signed_by(signing, signature, self.statement(context))

    def to_bytes(self) -> bytes:
        """Return the set as every side writes it."""
        fields = [part for name, digest in self.digests.items() for part in (name, digest)]
        return counted(len(self.digests)) + joined(*fields)

    def check(self, roster: Roster) -> None:
        """Refuse a set with strangers, or with fewer than the threshold.

        Raises:
            SecureSumError: with the reason as its code.
        """
        if any(name not in roster.positions for name in self.names):
            raise SecureSumError(Refusal.SURVIVORS_STRANGER)
        if len(self.names) < roster.numbers.thresholds.threshold:
            raise SecureSumError(Refusal.SURVIVORS_TOO_FEW)


def read_survivors(reader: Reader) -> Survivors:
    """Read a set whose names ascend, so that none stands in it twice.

    Raises:
        SecureSumError: these are other bytes.
    """
    pairs = [(reader.text(), reader.fixed(DIGEST_BYTES)) for _ in range(reader.size(MOST_NODES))]
    names = [name.encode() for name, _ in pairs]
    if names != sorted(set(names)):
        raise malformed("names that ascend")
    return Survivors(dict(pairs))
