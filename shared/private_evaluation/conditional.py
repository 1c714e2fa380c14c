"""Interval of a share given that it is shown: its total stood out of its noise, perhaps by that very noise.

Rows whose true count is below the bound for showing are seen just when noise lifts them above it, and then the plain
interval holds the true share in as few as 84 of 100 rows. So rows that are shown get the values that also go with the
counts under the noise as it is among releases that are shown.

For a share rho, inside - rho x total is noise D alone. The total is c D and a rest that is independent of D; given that
rest, the total passes its bound exactly if D lies on one side of a known point. So D is a normal variable that is cut
off there, whatever the true total is (Lee et al. 2016, "Exact post-selection inference"). Far above the bound the cut
takes nothing away, and this is the plain interval.
"""

import numpy as np
from numpy.typing import NDArray

from shared.private_evaluation.intervals import SHOWN_ABOVE, Flags, Interval, Numbers, Share, Z

STEPS = 64
"""Values that are looked at on each side of the plain interval."""
NEGLIGIBLE = 10.0
"""Standard deviations above the bound for showing from which on the cut takes nothing away."""


def interval_if_shown(share: Share, *, sampling: bool, z: float = Z) -> Interval:
    """Return every share that goes with the counts of a row that is shown.

    Guarantee: among rows that are shown, whatever their true count, the interval holds the share in 95 of 100 or more.
    """
    plain, spread = share.interval(sampling=sampling, z=z), share.sigma * share.cells**0.5
    if (np.asarray(share.total) >= (SHOWN_ABOVE + NEGLIGIBLE) * spread).all():
        return plain
    parts = np.linspace(0, 1, STEPS + 1).reshape(-1, *(1,) * plain.low.ndim)
    below, above = plain.low * parts, 1 - (1 - plain.high) * parts
    return Interval(
        np.asarray(np.where(_goes_with(share, below, sampling, z), below, plain.low).min(axis=0)),
        np.asarray(np.where(_goes_with(share, above, sampling, z), above, plain.high).max(axis=0)),
    )


def _goes_with(share: Share, rho: Numbers, sampling: bool, z: float) -> Flags:
    """Return whether neither tail of the noise, cut off where the row would not be shown, is too small."""
    from scipy.special import ndtr

    total, square = np.asarray(share.total, float), share.sigma**2
    some = np.maximum(total, 0)
    noise = np.clip(share.inside, 0, some) - rho * total
    variance = square * (share.cells_inside - 2 * share.cells_inside * rho + share.cells * rho**2)
    spread = np.sqrt(variance + some * rho * (1 - rho) * sampling)
    slope = square * (share.cells_inside - rho * share.cells) / spread**2
    room = (total - SHOWN_ABOVE * share.sigma * share.cells**0.5) / np.maximum(np.abs(slope), 1e-300)
    # shown if the noise is at least this far down where it lifts the total, at most this far up where it lowers it
    lowest, at, highest = (noise - room) / spread, noise / spread, (noise + room) / spread
    lifts = slope > 0
    mass: NDArray[np.float64] = np.maximum(np.where(lifts, ndtr(-lowest), ndtr(highest)), 1e-300)
    over = np.where(lifts, ndtr(-at), ndtr(highest) - ndtr(at)) / mass
    short = np.where(lifts, ndtr(at) - ndtr(lowest), ndtr(at)) / mass
    return np.asarray(np.minimum(over, short) >= ndtr(-z))
