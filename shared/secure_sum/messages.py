"""The five messages of a round, as values and as bytes.

| message | from | holds | bytes, for n nodes, d values, k survivors |
|---|---|---|---|
| `MaskedVector` | node | masked values, commitment, a digest and a box for each holder | 8 d + 114 n |
| `SurvivorsQuestion` | server | the set U | 40 k and names |
| `SurvivorsReply` | node | its signature on U | 64 |
| `OpeningQuestion` | server | U, signatures on it, what each survivor dealt to this node | 260 k and names |
| `OpeningReply` | node | shares of survivors' own masks, keys of pair masks with the missing | 67 k + 32 (n - k) |

Each names its context by digest. All honest messages of one kind have one size in a round, apart from names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from shared.secure_sum.boxes import BOX_BYTES
from shared.secure_sum.context import DIGEST_BYTES, KEY_BYTES
from shared.secure_sum.encoding import MOST_NAME_BYTES, MOST_NODES, Kind, Reader, counted, head, joined, malformed
from shared.secure_sum.keys import SIGNATURE_BYTES
from shared.secure_sum.masks import MOST_VALUES, VALUE_BYTES, Masked
from shared.secure_sum.shares import SHARE_BYTES
from shared.secure_sum.survivors import Survivors, read_survivors

MOST_SMALL = MOST_NODES * (2 * MOST_NAME_BYTES + 512) + 1024
MOST_MASKED = VALUE_BYTES * MOST_VALUES + MOST_SMALL
NOT_OPENED = b"\0" * (SHARE_BYTES + 1)


class Dealt(NamedTuple):
    """What a dealer made for one holder."""

    share_digest: bytes
    box: bytes


@dataclass(frozen=True)
class MaskedVector:
    """One node's vector, hidden, with what is needed to take its own mask from the sum."""

    context: bytes
    name: str
    commitment: bytes
    dealt: tuple[Dealt, ...]
    """By the holders' places in the roster. The dealer's own place has a box of zeros: it keeps that share."""
    values: Masked

    def to_bytes(self) -> bytes:
        """Return the message."""
        parts = [head(Kind.MASKED), joined(self.context, self.name, self.commitment), counted(len(self.dealt))]
        parts += [part for dealt in self.dealt for part in dealt]
        return b"".join([*parts, counted(len(self.values)), self.values.astype("<u8", copy=False).tobytes()])

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read a message of anybody's.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.MASKED, most_bytes=MOST_MASKED)
        context, name, commitment = reader.fixed(DIGEST_BYTES), reader.text(), reader.fixed(DIGEST_BYTES)
        count = reader.size(MOST_NODES)
        dealt = tuple(Dealt(reader.take(DIGEST_BYTES), reader.take(BOX_BYTES)) for _ in range(count))
        packed = reader.take(VALUE_BYTES * reader.size(MOST_VALUES))
        reader.end()
        return cls(context, name, commitment, dealt, np.frombuffer(packed, "<u8").astype(np.uint64, copy=False))


def masked_bytes(name: str, nodes: int, length: int) -> int:
    """Return the size of a node's masked vector, so that a reply without one can be as long."""
    return len(head(Kind.MASKED)) + 84 + len(name.encode()) + nodes * (DIGEST_BYTES + BOX_BYTES) + VALUE_BYTES * length


def most_masked_bytes(length: int) -> int:
    """Return the most bytes that a masked vector of so many values comes in."""
    return masked_bytes("x" * MOST_NAME_BYTES, MOST_NODES, length)


@dataclass(frozen=True)
class SurvivorsQuestion:
    """The server's question whether a node signs a set."""

    context: bytes
    survivors: Survivors

    def to_bytes(self) -> bytes:
        """Return the message."""
        return head(Kind.SURVIVORS_QUESTION) + joined(self.context) + self.survivors.to_bytes()

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read a message of anybody's.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.SURVIVORS_QUESTION, most_bytes=MOST_SMALL)
        question = cls(reader.fixed(DIGEST_BYTES), read_survivors(reader))
        reader.end()
        return question


@dataclass(frozen=True)
class SurvivorsReply:
    """A node's signature on the set that it was asked about."""

    context: bytes
    name: str
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return the message."""
        return head(Kind.SURVIVORS_REPLY) + joined(self.context, self.name, self.signature)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read a message of anybody's.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.SURVIVORS_REPLY, most_bytes=MOST_SMALL)
        reply = cls(reader.fixed(DIGEST_BYTES), reader.text(), reader.fixed(SIGNATURE_BYTES))
        reader.end()
        return reply


class Held(NamedTuple):
    """What a survivor dealt to the node that is asked."""

    commitment: bytes
    share_digest: bytes
    box: bytes


@dataclass(frozen=True)
class OpeningQuestion:
    """The server's question to one node for what opens the sum of a set."""

    context: bytes
    survivors: Survivors
    signatures: Mapping[str, bytes]
    held: tuple[Held, ...]
    """By survivor, in the set's order."""

    def to_bytes(self) -> bytes:
        """Return the message."""
        signed = [part for pair in self.signatures.items() for part in pair]
        parts = [head(Kind.OPENING_QUESTION), joined(self.context), self.survivors.to_bytes()]
        parts += [counted(len(self.signatures)), joined(*signed)]
        return b"".join([*parts, *(part for held in self.held for part in held)])

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read a message of anybody's.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.OPENING_QUESTION, most_bytes=MOST_SMALL)
        context, survivors = reader.fixed(DIGEST_BYTES), read_survivors(reader)
        signed = [(reader.text(), reader.fixed(SIGNATURE_BYTES)) for _ in range(reader.size(MOST_NODES))]
        if len(dict(signed)) != len(signed):
            raise malformed("one signature a name")
        sizes = DIGEST_BYTES, DIGEST_BYTES, BOX_BYTES
        held = tuple(Held(*(reader.take(size) for size in sizes)) for _ in survivors.names)
        reader.end()
        return cls(context, survivors, dict(signed), held)


@dataclass(frozen=True)
class OpeningReply:
    """One node's part of an opening; it says nothing of a vector that is not in the set."""

    context: bytes
    name: str
    shares: tuple[bytes | None, ...]
    """Of survivors' own masks, in the set's order; None where the box did not hold what was announced."""
    seeds: tuple[bytes, ...]
    """Keys of the pair masks with the missing, in the roster's order."""

    def to_bytes(self) -> bytes:
        """Return the message."""
        shares = b"".join(NOT_OPENED if share is None else b"\1" + share for share in self.shares)
        parts = [head(Kind.OPENING_REPLY), joined(self.context, self.name), counted(len(self.shares)), shares]
        return b"".join([*parts, counted(len(self.seeds)), *self.seeds])

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read a message of anybody's.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.OPENING_REPLY, most_bytes=MOST_SMALL)
        context, name = reader.fixed(DIGEST_BYTES), reader.text()
        shares = tuple(_share(reader.take(SHARE_BYTES + 1)) for _ in range(reader.size(MOST_NODES)))
        seeds = tuple(reader.take(KEY_BYTES) for _ in range(reader.size(MOST_NODES)))
        reader.end()
        return cls(context, name, shares, seeds)


def _share(field: bytes) -> bytes | None:
    if field == NOT_OPENED:
        return None
    # whatever its value: a holder passes on what it was dealt, and a false share is its dealer's
    if field[0] != 1:
        raise malformed("a share")
    return field[1:]
