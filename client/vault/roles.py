"""Which record trains, which is held out, which is dropped: decided for each record by itself.

A shuffle, a stratified split, a row cap or de-duplication would let one record's presence change what happens to
others, and the privacy guarantee speaks of exactly that. A keyed hash of the record decides instead; two equal records
share a fate, so none is both trained on and held out.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from shared.checks import finite
from shared.errors import SettingsError


class Role(StrEnum):
    """What a record is for."""

    TRAIN = "train"
    HOLDOUT = "holdout"
    DROPPED = "dropped"


def role(text: str, label: str, *, key: bytes, holdout: float, used: float = 1.0) -> Role:
    """Decide one record's role.

    Guarantee: whether a record is used, held out or dropped depends on that record alone.

    Args:
        text: of the record.
        label: of the record.
        key: of the node, 16 to 64 bytes, secret: without it nobody can tell which records were trained on.
        holdout: fraction never trained on, in [0, 1).
        used: fraction of all records that is used at all, in (0, 1].
    """
    finite(holdout=holdout, used=used)
    if not (0 <= holdout < 1 and 0 < used <= 1):
        raise SettingsError(f"Expected holdout in [0, 1) and used in (0, 1], got {holdout} and {used}.")
    held_out, kept = (_fraction(text, label, key, purpose) for purpose in (b"holdout", b"used"))
    if kept >= used:
        return Role.DROPPED
    return Role.HOLDOUT if held_out < holdout else Role.TRAIN


def roles(texts: Sequence[str], labels: Sequence[str], *, key: bytes, holdout: float, used: float = 1.0) -> list[Role]:
    """Decide every record's role, each by itself."""
    pairs = zip(texts, labels, strict=True)
    return [role(text, label, key=key, holdout=holdout, used=used) for text, label in pairs]


def _fraction(text: str, label: str, key: bytes, purpose: bytes) -> float:
    hashed = hashlib.blake2b(key=key, person=purpose, digest_size=8)
    for part in (text, label):  # lengths first, so that no two records share an encoding
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(hashed.digest(), "big") / 2**64
