"""The units that a run's evaluation counts: held out, each once, with the group that its own cells name."""

from collections.abc import Sequence

import numpy as np

from client.vault.records.identity import unit_name
from client.vault.records.privacy_units import group, rows_without_copies
from shared.records.ragged import Records, ragged
from shared.study.evaluation import Subgroup

GROUP = "subgroup"
"""Field of a held-out record: index of its group among the study's, the last of which is `other`."""


def held_out_units(
    held_out: Records,
    *,
    units: Sequence[str] | None,
    groups: Sequence[object] | None,
    subgroup: Subgroup | None,
    records_per_unit: int,
    key: bytes,
) -> Records:
    """Return held-out records with their groups, copies left out and no unit with more records than are trained on.

    Guarantee: whether a held-out record counts, and in which group, depends on its own unit's records alone.

    Args:
        held_out: of the snapshot.
        units: cell of the unit column of each record; None: each record is a unit of its own.
        groups: cell of the subgroup's column of each record; None where the study has no subgroup.
        subgroup: of the study.
        records_per_unit: from the study.
        key: of the node.
    """
    records = with_groups(held_out, groups, subgroup)
    if units is not None:
        return group(records, units, records_per_unit=records_per_unit, key=key)
    return records.select(rows_without_copies(records))


def with_groups(held_out: Records, groups: Sequence[object] | None, subgroup: Subgroup | None) -> Records:
    """Return held-out records with the group of each, from the cells of the subgroup's column."""
    indices = [group_of(cell, subgroup) for cell in groups or ()] if subgroup is not None else [0] * len(held_out)
    return Records({**held_out.fields, GROUP: ragged(indices, np.int64)}, held_out.usable)


def group_of(cell: object, subgroup: Subgroup) -> int:
    """Return the index of the group that a cell names, in any case and spacing; `other` if it names none."""
    names = [unit_name(value) for value in subgroup.values]
    name = unit_name(cell) if isinstance(cell, str) else ""
    return names.index(name) if name in names else len(names)
