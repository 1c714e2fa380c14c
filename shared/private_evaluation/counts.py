"""Count held-out units by cell, such that adding or removing one unit moves the counts by at most 1, l2."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.private_evaluation.cells import STEPS


def counts(places: Sequence[int], units: Sequence[int] | None, *, length: int) -> NDArray[np.int64]:
    """Return how many units are in each cell, in steps of the grid (length,).

    A unit of several records shares its one count among them evenly, rounded down to the grid: rounded to the nearest,
    three thirds could come to more than 1.

    Guarantee: one unit adds at most 1 in all to the counts, so it moves them by at most 1, l2, whatever others hold.

    Args:
        places: cell of each record.
        units: unit of each record, from 0; None: each record is a unit of its own.
        length: number of cells.

    Raises:
        SettingsError: a record is in no cell, or has no unit.
    """
    cells = np.asarray(places, dtype=np.int64)
    owners = np.arange(len(cells)) if units is None else np.asarray(units, dtype=np.int64)
    if owners.shape != cells.shape or ((cells < 0) | (cells >= length)).any() or (owners < 0).any():
        raise SettingsError("Expected a cell and a unit for each record that is counted, got something else.")
    histogram = np.zeros(length, dtype=np.int64)
    if len(cells):
        np.add.at(histogram, cells, STEPS // np.bincount(owners)[owners])
    return histogram
