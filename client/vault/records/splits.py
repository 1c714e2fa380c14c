"""Splitting records into trained on, held out and dropped: decided for each record by itself.

A shuffle, a stratified split, a row cap or de-duplication would let one record's presence change what happens to
others, and the privacy guarantee speaks of exactly that. A keyed hash of the record's content decides instead; records
of equal content share a fate, whatever their labels, so none is both trained on and held out. Where the unit of privacy
is more than one record, the unit's name is hashed instead, and all its records share a fate.
"""

import hashlib
from collections.abc import Callable, Sequence
from enum import StrEnum

from client.vault.records.identity import unit_name
from shared.checks import finite
from shared.errors import SettingsError


class Split(StrEnum):
    """A record's place."""

    TRAIN = "train"
    HOLDOUT = "holdout"
    DROPPED = "dropped"
    NO_UNIT = "no unit"
    """Its unit has no value, so nobody's budget could pay for it: not used. How many is for the operator's eyes."""


def split_of(*identity: str, key: bytes, holdout: float, used: float = 1.0) -> Split:
    """Decide the split of one record, or of one unit with all its records.

    Guarantee: whether a record is used, held out or dropped depends on that record alone.

    Args:
        identity: content of a record, or the name of a unit.
        key: of the node, 16 to 64 bytes, secret: without it nobody can tell which records were trained on.
        holdout: fraction never trained on, in [0, 1).
        used: fraction of all records or units that is used at all, in (0, 1].
    """
    finite(holdout=holdout, used=used)
    if not (0 <= holdout < 1 and 0 < used <= 1):
        raise SettingsError(f"Expected holdout in [0, 1) and used in (0, 1], got {holdout} and {used}.")
    for_holdout, for_use = (_fraction(identity, key, purpose) for purpose in (b"holdout", b"used"))
    if for_use >= used:
        return Split.DROPPED
    return Split.HOLDOUT if for_holdout < holdout else Split.TRAIN


def splits_of(contents: Sequence[tuple[str, ...]], *, key: bytes, holdout: float, used: float = 1.0) -> list[Split]:
    """Decide every record's split, each by itself, from these texts of it."""
    return [split_of(*content, key=key, holdout=holdout, used=used) for content in contents]


def unit_splits(
    values: Sequence[str],
    *,
    key: bytes,
    holdout: float,
    used: float = 1.0,
    name_of: Callable[[str], str] = unit_name,
) -> list[Split]:
    """Decide every record's split by the unit that it belongs to; a record of nobody gets `NO_UNIT`.

    Guarantee: all records of a unit share one split, which depends on the unit's value alone.

    Args:
        values: cell of the unit column, one per record.
        key: of the node, as for `split_of`.
        holdout: fraction of the units never trained on, in [0, 1).
        used: fraction of all units that is used at all, in (0, 1].
        name_of: names the unit of a cell; empty if it is nobody's.
    """
    names = [name_of(value) for value in values]
    decided = {name: split_of(name, key=key, holdout=holdout, used=used) for name in dict.fromkeys(names)}
    return [decided[name] if name else Split.NO_UNIT for name in names]


def _fraction(identity: Sequence[str], key: bytes, purpose: bytes) -> float:
    hashed = hashlib.blake2b(key=key, person=purpose, digest_size=8)
    for part in identity:  # lengths first, so that no two records share an encoding
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(hashed.digest(), "big") / 2**64
