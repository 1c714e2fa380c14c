"""Estimate shares, the least of several and the gap between them from noised counts, with 95 % intervals.

Every number that is estimated is made of shares: of the units of some cells, how many lie in a part of these cells.
Noise of known size was added to each cell. So a share rho is in its interval if inside - rho x total is no further from
0 than that noise lets it be (Fieller 1954): this is exact, however few units there are, where a quotient with a
standard error is not. The units are themselves drawn from all whom a site might see; `sampling` adds that, by the
variance that units have under rho (Wilson 1927).

All take arrays as well as numbers: one entry for each release.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
"""Chance that an interval holds the true value, before anybody has seen a release."""
SHOWN_ABOVE = 5.0
"""Standard deviations of its own noise that a count must reach, or nothing is estimated from it."""
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


def deviations(tails: float) -> float:
    """Return how many standard deviations to either side leave out this chance, both tails together."""
    return NormalDist().inv_cdf(1 - tails / 2)


TAILS = 1 - LEVEL
Z = deviations(TAILS)


class Interval(NamedTuple):
    """The lowest and highest value that go with what was released."""

    low: Numbers
    high: Numbers


class Quantity(Protocol):
    """A number that noised counts tell something about."""

    @property
    def estimate(self) -> Numbers:
        """Return the value that the counts suggest."""
        ...

    @property
    def shown(self) -> Flags:
        """Return whether the counts that it rests on stand out of their own noise."""
        ...

    def interval(self, *, sampling: bool, z: float = Z) -> Interval:
        """Return every value that goes with the counts.

        Args:
            sampling: whether it is that of whom the units were drawn from; otherwise of these units.
            z: standard deviations to either side.
        """
        ...


@dataclass(frozen=True)
class Share:
    """Of the units in some cells, how many lie in a part of these cells.

    Guarantee: the interval of a share holds it in 95 of 100 releases; in more where it is near 0 or 1.
    """

    inside: ArrayLike
    total: ArrayLike
    cells_inside: int
    cells: int
    """Cells that the total sums, each with noise of its own; those inside are among them."""
    sigma: float
    """Standard deviation of one cell's noise, in units."""

    @property
    def estimate(self) -> Numbers:
        """Return the share, no less than 0 and no more than 1; 0 of a total that is all noise."""
        total = np.asarray(self.total, float)
        share = np.divide(self.inside, total, out=np.zeros_like(total), where=total > 0)
        return np.asarray(np.clip(share, 0, 1))

    @property
    def shown(self) -> Flags:
        """Return whether the total stands out of its noise."""
        return np.asarray(np.asarray(self.total) >= SHOWN_ABOVE * self.sigma * self.cells**0.5)

    def interval(self, *, sampling: bool, z: float = Z) -> Interval:
        """Return every share that goes with the counts."""
        total, spread = np.asarray(self.total, float), z * z * self.sigma**2
        drawn = z * z * np.maximum(total, 0) * sampling
        # counts beyond the cells they are part of are noise: from 0 or all, the other limit keeps its width
        inside = np.clip(self.inside, 0, np.maximum(total, 0))
        # (inside - rho total)² <= z² (variance under rho)
        a = total**2 - spread * self.cells + drawn
        b = inside * total - spread * self.cells_inside + drawn / 2
        c = inside**2 - spread * self.cells_inside
        return between_roots(a, b, c, known=total > 0, ends=(0.0, 1.0))


def between_roots(a: Numbers, b: Numbers, c: Numbers, *, known: Flags, ends: tuple[float, float]) -> Interval:
    """Return where a rho² - 2 b rho + c <= 0, within the ends; everywhere between them if nothing bounds it."""
    known, (lowest, highest) = known & (a > 0), ends
    divisor, half = np.where(known, a, 1.0), np.sqrt(np.maximum(b * b - a * c, 0))
    low = np.where(known, np.clip((b - half) / divisor, lowest, highest), lowest)
    return Interval(low, np.where(known, np.clip((b + half) / divisor, lowest, highest), highest))


def least(quantities: Sequence[Quantity], *, sampling: bool) -> Interval:
    """Return the interval of the least of several independent quantities, whichever of them it is.

    None is below the least, so the lowest of the lower limits needs no correction. The lowest of the upper limits is as
    low as the luckiest draw of noise, so all of them are held at once (Šidák 1967).

    Guarantee: the interval of the worst site holds the least value of all sites in at least 95 of 100 releases.
    """
    one = 1 - (1 - TAILS / 2) ** (1 / len(quantities))
    low = [each.interval(sampling=sampling).low for each in quantities]
    high = [each.interval(sampling=sampling, z=deviations(2 * one)).high for each in quantities]
    return Interval(np.min(low, axis=0), np.min(high, axis=0))


def gap(quantities: Sequence[Quantity], *, sampling: bool) -> Interval:
    """Return the interval of the largest of several independent quantities less the smallest.

    A lower limit above 0 says that there is a gap. The pairs share the chance of an error (Bonferroni), and the upper
    limit is that of the pair that lies furthest apart. A pair's limits come from those of its two (MOVER, Zou and
    Donner 2008).

    Guarantee: where there is no gap, at most 5 of 100 releases say that there is one, however many groups there are.
    """
    pairs = list(combinations(quantities, 2))
    low = _farthest(
        pairs, lambda one, other: difference(one, other, sampling=sampling, z=deviations(TAILS / len(pairs))).low
    )
    return Interval(low, _farthest(pairs, lambda one, other: difference(one, other, sampling=sampling, z=Z).high))


def _farthest(pairs: Sequence[tuple[Quantity, Quantity]], limit: Callable[[Quantity, Quantity], Numbers]) -> Numbers:
    """Return the highest limit of all differences, whichever of two is the larger; 0 at the least."""
    return np.asarray(np.max([[limit(one, other), limit(other, one)] for one, other in pairs], axis=(0, 1)).clip(0))


def difference(one: Quantity, other: Quantity, *, sampling: bool, z: float) -> Interval:
    """Return the interval of one quantity less another, independent one, from those of the two (MOVER)."""
    first, following = one.interval(sampling=sampling, z=z), other.interval(sampling=sampling, z=z)
    between, down = one.estimate - other.estimate, np.hypot(one.estimate - first.low, following.high - other.estimate)
    return Interval(between - down, between + np.hypot(first.high - one.estimate, other.estimate - following.low))
