"""Estimate mean values and macro-F1 from noised counts, with 95 % intervals."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shared.private_evaluation.intervals import (
    SHOWN_ABOVE,
    Flags,
    Interval,
    Numbers,
    Share,
    Z,
    between_roots,
)


@dataclass(frozen=True)
class Mean:
    """The mean of a value that is the same for all units of a cell, as the middle of a bin of scores is.

    Guarantee: the interval of a mean holds it in 95 of 100 releases; in more near the least or largest value.
    """

    counts: Numbers
    """Noised, the last axis by cell."""
    values: Numbers
    """Of the cells, in any order."""
    sigma: float
    """Standard deviation of one cell's noise, in units."""

    @cached_property
    def _total(self) -> Numbers:
        return np.asarray(self.counts.sum(axis=-1))

    @cached_property
    def _sum(self) -> Numbers:
        some = np.maximum(self._total, 0)
        return np.asarray(np.clip(self.counts @ self.values, self.values.min() * some, self.values.max() * some))

    @property
    def estimate(self) -> Numbers:
        """Return the mean; the least value if the total is all noise."""
        return np.asarray(
            np.where(self._total > 0, self._sum / np.where(self._total > 0, self._total, 1), self.values.min())
        )

    @property
    def shown(self) -> Flags:
        """Return whether the total stands out of its noise."""
        return np.asarray(self._total >= SHOWN_ABOVE * self.sigma * len(self.values) ** 0.5)

    def interval(self, *, sampling: bool, z: float = Z) -> Interval:
        """Return every mean that goes with the counts; by Fieller's theorem, as for shares."""
        spread, drawn = z * z * self.sigma**2, z * z * np.maximum(self.counts, 0) * sampling
        a = self._total**2 - spread * len(self.values) - drawn.sum(axis=-1)
        b = self._sum * self._total - spread * self.values.sum() - drawn @ self.values
        c = self._sum**2 - spread * (self.values**2).sum() - drawn @ self.values**2
        return between_roots(a, b, c, known=self._total > 0, ends=(self.values.min(), self.values.max()))


@dataclass(frozen=True)
class MacroF1:
    """The mean over the classes of F1, from a confusion matrix.

    A class's F1 is 2 s / (1 + s) of the share s of its hits among its hits, misses and false alarms, and has its
    limits. Those of the mean come from them by MOVER for dependent estimates (Zou 2008), as classes share cells.

    Guarantee: the interval of macro-F1 holds it in 94 to 96 of 100 releases.
    """

    counts: Numbers
    """Noised, the last two axes by true and by predicted class."""
    sigma: float
    """Standard deviation of one cell's noise, in units."""

    @cached_property
    def _shares(self) -> list[Share]:
        counts = self.counts
        classes, shares = counts.shape[-1], []
        for label in range(classes):
            hits = counts[..., label, label]
            either = counts[..., label, :].sum(axis=-1) + counts[..., :, label].sum(axis=-1) - hits
            shares.append(Share(hits, either, 1, 2 * classes - 1, self.sigma))
        return shares

    @property
    def estimate(self) -> Numbers:
        """Return macro-F1."""
        return np.asarray(self._by_class.mean(axis=-1))

    @property
    def shown(self) -> Flags:
        """Return whether every class's hits, misses and false alarms together stand out of their noise."""
        return np.asarray(np.all([share.shown for share in self._shares], axis=0))

    def interval(self, *, sampling: bool, z: float = Z) -> Interval:
        """Return the limits of macro-F1."""
        limits, together = (
            [share.interval(sampling=sampling, z=z) for share in self._shares],
            self._correlation(sampling),
        )
        down = self._by_class - np.stack([_f1(limit.low) for limit in limits], axis=-1)
        up = np.stack([_f1(limit.high) for limit in limits], axis=-1) - self._by_class
        mean, classes = self.estimate, len(limits)
        low, high = (
            np.sqrt(np.maximum(np.einsum("...i,...ij,...j->...", side, together, side), 0)) / classes
            for side in (down, up)
        )
        return Interval(np.asarray(np.clip(mean - low, 0, 1)), np.asarray(np.clip(mean + high, 0, 1)))

    @cached_property
    def _by_class(self) -> Numbers:
        return np.stack([_f1(share.estimate) for share in self._shares], axis=-1)

    def _correlation(self, sampling: bool) -> Numbers:
        """Return how the classes' F1 move together, by their slopes in each cell."""
        counts, score = self.counts, self._by_class
        classes = counts.shape[-1]
        slopes = np.zeros((*counts.shape[:-2], classes, classes, classes))
        for label in range(classes):
            slopes[..., label, label, :] -= score[..., label, None]
            slopes[..., label, :, label] -= score[..., label, None]
            slopes[..., label, label, label] += 2
        spread = self.sigma**2 + np.maximum(counts, 0) * sampling
        together: Numbers = np.einsum("...itp,...tp,...jtp->...ij", slopes, spread, slopes)
        size = np.sqrt(np.einsum("...ii->...i", together))
        size = np.where(size > 0, size, 1)
        return np.asarray(together / (size[..., :, None] * size[..., None, :]))


def _f1(hits: Numbers) -> Numbers:
    return np.asarray(2 * hits / (1 + hits))
