"""Bound the length of an honest update of one round, by public numbers alone; node and server get the same.

A step moves by rate x factor x (sum of clipped gradients + noise) / L, with the divisor L. Signals may point the same
way in every step and add up; independent noise adds in quadrature.
"""

import math
from collections.abc import Sequence

from shared.study.sections import MOST_WEIGHT, Federation


def widest_site(federation: Federation) -> tuple[int, int]:
    """Return units and divisor size of a site whose honest updates are as long as those of any that a study admits.

    No site has more units for each that it divides by, and none divides by less. The smallest divides by the least;
    where sites divide by a typical size, the heaviest have `MOST_WEIGHT` units for each.
    """
    smallest = federation.smallest_declared_size
    divisor = federation.divisor_size(smallest)
    return smallest if federation.typical_size is None else MOST_WEIGHT * divisor, divisor


def largest_signal(
    *, rate: float, factors: Sequence[float], clip_norm: float, expected_batch: float, divisor: float
) -> float:
    """Return how far the clipped sums of a round can move an update, l2; so also the most for any one value.

    A sum is at most clip_norm times the batch, and a Poisson batch of mean B exceeds B + 10 sqrt(B) + 10 practically
    never (Chernoff: below e^-30).

    Args:
        rate: learning rate at the study's first step.
        factors: factor on the rate of every step of the round.
        clip_norm: C, the largest length of one unit's gradient.
        expected_batch: B = sampling rate x declared size.
        divisor: L, the divisor of every sum.
    """
    largest_batch = expected_batch + 10 * math.sqrt(expected_batch) + 10
    return rate * clip_norm * largest_batch / divisor * sum(factors)


def noise_deviation(
    *, rate: float, factors: Sequence[float], clip_norm: float, noise_multiplier: float, divisor: float
) -> float:
    """Return the standard deviation of the noise in each value of an update.

    Args:
        rate: learning rate at the study's first step.
        factors: factor on the rate of every step of the round.
        clip_norm: C.
        noise_multiplier: sigma.
        divisor: L, the divisor of every sum.
    """
    return rate * noise_multiplier * clip_norm / divisor * math.sqrt(sum(factor**2 for factor in factors))
