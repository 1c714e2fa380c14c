"""The public grid of updates as whole numbers: exact to add, so a sum has the same bits whatever the order."""

import numpy as np
from numpy.typing import NDArray

FRACTION_BITS = 32
LARGEST_VALUE = 1000.0
"""Beyond this a value is cut off: no honest update has one, and the sum of a million nodes cannot overflow."""


def as_integers(update: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a noised update in steps of 2^-32, each value rounded to the nearest and cut off at `LARGEST_VALUE`."""
    values = np.clip(np.nan_to_num(update.astype(np.float64), nan=0.0), -LARGEST_VALUE, LARGEST_VALUE)
    return np.rint(np.ldexp(values, FRACTION_BITS)).astype(np.int64)


def mean_of(total: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return the mean of `count` updates from their sum as whole numbers."""
    return np.ldexp(total.astype(np.float64), -FRACTION_BITS) / max(1, count)
