"""A site's records by units: which belong together, and how many of each are kept."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.vault.records.identity import unit_name
from shared.checks import at_least
from shared.errors import DataError
from shared.records.ragged import Records, with_units


def group(records: Records, values: Sequence[str], *, records_per_unit: int, key: bytes) -> Records:
    """Mark which records belong together, and leave out those beyond `records_per_unit` of a unit.

    Usable records go first, then the smallest keyed hash decides: row order would favour whatever the table is sorted
    by, and one shuffle over all rows would let one unit's rows move the choice of another's.

    Guarantee: which of a unit's records are kept depends on that unit's records alone.

    Args:
        records: one per value.
        values: cell of the unit column, one per record; rows that name no unit are gone already.
        records_per_unit: from the study; >= 1.
        key: of the node, 16 to 64 bytes, secret.

    Raises:
        DataError: not one value per record, or a value that names nobody.
    """
    at_least(1, records_per_unit=records_per_unit)
    names = [unit_name(value) for value in values]
    if len(names) != len(records) or not all(names):
        raise DataError(
            f"Expected a unit for each of {len(records)} records, got {sum(map(bool, names))}.",
            hint="Leave out the rows without one.",
        )
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    units = np.fromiter((index[name] for name in names), dtype=np.int64, count=len(names))
    rows = _rows_kept(records, units, records_per_unit=records_per_unit, key=key)
    return with_units(records.select(rows), units[rows])


def rows_without_copies(records: Records) -> NDArray[np.int64]:
    """Return the rows of records without copies, ascending: copies are one record, however often it was entered.

    Records are copies if a study encodes them alike, answers included.
    Records of equal content and different answers all stay: choosing among them would let one that is added replace
    another, and move a step's sum by twice the clipping norm.

    Guarantee: a copy of a record changes nothing that is trained on.
    """
    first: dict[bytes | int, int] = {}
    for row, usable in enumerate(records.usable.tolist()):
        # those that cannot be used contribute nothing, and their placeholders are alike
        first.setdefault(hashlib.sha256(records.content(row)).digest() if usable else row, row)
    return np.array([*first.values()], dtype=np.int64)


def _rows_kept(records: Records, units: NDArray[np.int64], *, records_per_unit: int, key: bytes) -> NDArray[np.int64]:
    """Rows that stay, ascending."""
    hashes = np.array([_keyed_hash(records, row, key) for row in range(len(records))], dtype=np.uint64)
    order = np.lexsort((hashes, ~records.usable, units))
    rank_in_unit = np.arange(len(order)) - np.searchsorted(units[order], units[order])
    return np.sort(order[rank_in_unit < records_per_unit]).astype(np.int64)


def _keyed_hash(records: Records, row: int, key: bytes) -> int:
    hashed = hashlib.blake2b(records.content(row), key=key, person=b"kept", digest_size=8)
    return int.from_bytes(hashed.digest(), "big")
