"""Guess who took part from losses under many adapters, each trained on a random half. Pure, no IO.

For one adapter, all others are shadows. A unit is suspected as far as the adapter likes it better than the shadows do:
ratio = p(unit | adapter) / mean of p(unit | shadows with it) and p(unit | shadows without it), in logarithms. Its score
is the ratio in units of how those of the adapter's non-members spread, so that scores of several adapters compare.

Source: after Zarifzadeh et al. 2024, arXiv:2312.03262 (RMIA), equation 2; they compare ratios one by one instead.
"""

import math

import numpy as np
from numpy.typing import NDArray

from shared.evidence.audit_result import FALSE_POSITIVE_RATE, Hits

RESAMPLES, SEED = 300, 20
PERCENTILES = (2.5, 97.5)
Losses = NDArray[np.float64]
"""By adapter and unit (adapters, units)."""
Included = NDArray[np.bool_]
"""Whether an adapter was trained on a unit (adapters, units)."""


def suspicion(losses: Losses, included: Included) -> NDArray[np.float64]:
    """Return every unit's score under each adapter, larger for likelier members (adapters, units)."""
    scores = np.empty_like(losses)
    for adapter in range(len(losses)):
        others = np.arange(len(losses)) != adapter
        with_it, without_it = (
            _log_mean(-losses[others], included[others] == trained_on) for trained_on in (True, False)
        )
        sides = np.stack([with_it, without_it])
        ratios = -losses[adapter] - _log_mean(sides, np.isfinite(sides))
        low, middle, high = np.percentile(ratios[~included[adapter]], (25, 50, 75))
        scores[adapter] = (ratios - middle) / max(high - low, 1e-12)
    return scores


def hits(scores: NDArray[np.float64], included: Included) -> Hits:
    """Return the share of members above all but 1 % of the non-members, with an interval that draws units anew."""
    generator, rates = np.random.default_rng(SEED), np.empty(RESAMPLES)
    units = scores.shape[1]
    for number in range(RESAMPLES):
        drawn = generator.integers(0, units, units)
        rates[number] = true_positive_rate(scores[:, drawn], included[:, drawn])
    low, high = np.percentile(rates, PERCENTILES)
    return Hits(rate=true_positive_rate(scores, included), low=float(low), high=float(high))


def true_positive_rate(scores: NDArray[np.float64], included: Included) -> float:
    """Return the share of members whose score is above that of all but 1 % of the non-members."""
    non_members = np.sort(scores[~included])
    if not len(non_members) or not included.any():
        return 0.0
    allowed = int(FALSE_POSITIVE_RATE * len(non_members))
    threshold = non_members[len(non_members) - 1 - allowed]
    return float((scores[included] > threshold).mean())


def largest_rate(epsilon: float, delta: float) -> float:
    """Return the largest true-positive rate at 1 % false positives that (epsilon, delta) allows any attacker.

    Source: Kairouz et al. 2015, arXiv:1311.0776, Theorem 2.1.
    """
    a = FALSE_POSITIVE_RATE
    return min(math.exp(epsilon) * a + delta, 1 - math.exp(-epsilon) * (1 - delta - a))


def _log_mean(logarithms: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return log of the mean over some rows of each column; minus infinity where there are none."""
    top = np.where(counted, logarithms, -np.inf).max(axis=0)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.where(counted, np.exp(logarithms - top), 0.0).sum(axis=0)
    with np.errstate(divide="ignore"):
        mean: NDArray[np.float64] = top + np.log(total) - np.log(np.maximum(counted.sum(axis=0), 1))
    return mean
