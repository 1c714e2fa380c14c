"""A site's records as token ids: ragged, read-only, and quick to open in another process."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.vault.roles import unit_name
from shared.checks import at_least
from shared.errors import DataError


@dataclass(frozen=True)
class TokenizedDataset:
    """Records with their targets.

    A record that cannot be used has target -1. It stays in place: taking it out would make the place of others depend
    on it, and its loss is zero anyway.
    """

    ids: NDArray[np.int32]
    """All token ids, one record after the other."""
    offsets: NDArray[np.int64]
    """Record i is ids[offsets[i]:offsets[i + 1]]."""
    targets: NDArray[np.int64]
    units: NDArray[np.int64] | None = None
    """Index of the unit that each record belongs to (records,), from 0. None: each record is a unit of its own."""

    def __post_init__(self) -> None:
        if self.units is None:
            return
        if self.units.shape != self.targets.shape or (self.units < 0).any():
            raise DataError(f"Expected one unit from 0 per record for {len(self)} records, got {self.units.shape}.")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def unit_count(self) -> int:
        """Units that are sampled from: records, or groups of records. For the operator's eyes only."""
        if self.units is None:
            return len(self)
        return int(self.units.max()) + 1 if len(self) else 0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per record."""
        return np.diff(self.offsets)

    @property
    def unusable(self) -> int:
        """Records without a usable target. For the operator's eyes only."""
        return int((self.targets < 0).sum())

    @property
    def digest(self) -> str:
        """Names the token ids on this machine, for caches. It is data: never sent."""
        return hashlib.blake2b(self.ids.tobytes() + self.offsets.tobytes(), digest_size=16).hexdigest()

    def record(self, index: int) -> NDArray[np.int32]:
        """Token ids of one record."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.units is None:
            np.savez(path, ids=self.ids, offsets=self.offsets, targets=self.targets)
        else:
            np.savez(path, ids=self.ids, offsets=self.offsets, targets=self.targets, units=self.units)


class Grouped(NamedTuple):
    """A dataset by units, and what that cost."""

    dataset: TokenizedDataset
    surplus: int
    """Records left out because their unit has too many. For the operator's eyes only."""


def from_records(records: list[list[int]], targets: NDArray[np.int64]) -> TokenizedDataset:
    """Pack token lists."""
    if len(records) != len(targets):
        raise DataError(f"Expected one target per record, got {len(records)} records and {len(targets)} targets.")
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in records], dtype=np.int64)]).astype(np.int64)
    ids = np.fromiter((token for record in records for token in record), dtype=np.int32, count=int(offsets[-1]))
    return TokenizedDataset(ids, offsets, targets.astype(np.int64))


def group(dataset: TokenizedDataset, values: Sequence[str], *, records_per_unit: int, key: bytes) -> Grouped:
    """Tell which records belong together, and keep at most `records_per_unit` of each unit.

    Usable records go first, then the smallest keyed hash decides: row order would favour whatever the table is sorted
    by, and one shuffle over all rows would let one unit's rows move the choice of another's.

    Guarantee: which of a unit's records are kept depends on that unit's records alone.

    Args:
        dataset: one record per value.
        values: cell of the unit column, one per record; rows whose role is `ownerless` are gone already.
        records_per_unit: from the study; >= 1.
        key: of the node, 16 to 64 bytes, secret.

    Raises:
        DataError: not one value per record, or a value that names nobody.
    """
    at_least(1, records_per_unit=records_per_unit)
    names = [unit_name(value) for value in values]
    if len(names) != len(dataset) or not all(names):
        raise DataError(
            f"Expected a unit for each of {len(dataset)} records, got {sum(map(bool, names))}.",
            hint="Leave out the rows without one.",
        )
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    units = np.fromiter((index[name] for name in names), dtype=np.int64, count=len(names))
    kept = _kept_rows(dataset, units, records_per_unit=records_per_unit, key=key)
    records = [dataset.record(i).tolist() for i in kept.tolist()]
    smaller = from_records(records, dataset.targets[kept])
    return Grouped(replace(smaller, units=units[kept]), len(dataset) - len(kept))


def load(path: Path) -> TokenizedDataset:
    """Read what `save` wrote."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            units = arrays["units"] if "units" in arrays.files else None
            return TokenizedDataset(arrays["ids"], arrays["offsets"], arrays["targets"], units)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Expected prepared records at {path}, got an unreadable file.", hint=str(error)) from None


def _kept_rows(
    dataset: TokenizedDataset, units: NDArray[np.int64], *, records_per_unit: int, key: bytes
) -> NDArray[np.int64]:
    """Rows that stay, ascending."""
    hashes = np.array([_keyed_hash(dataset, row, key) for row in range(len(dataset))], dtype=np.uint64)
    order = np.lexsort((hashes, dataset.targets < 0, units))
    rank_in_unit = np.arange(len(order)) - np.searchsorted(units[order], units[order])
    return np.sort(order[rank_in_unit < records_per_unit]).astype(np.int64)


def _keyed_hash(dataset: TokenizedDataset, row: int, key: bytes) -> int:
    target = int(dataset.targets[row]).to_bytes(8, "little", signed=True)
    encoded = target + dataset.record(row).astype("<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(encoded, key=key, person=b"kept", digest_size=8).digest(), "little")
