"""Compute the log moments of the Gaussian with Poisson samples, which accounting is made of, as Opacus does.

To the last bit, in a fraction of the time: most of a calibration are these sums, for one sampling rate and many sigma.
What sigma does not change is computed once, and what can be is computed for all terms at once. The terms are then added
one by one, in Opacus' order. Mironov et al. 2019 (arXiv:1908.10530), section 3.3.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ENOUGH = -30.0
"""Where the terms of a series end, for the first whose logarithm is less."""
FIRST_TERMS = 128


def log_moment(order: float, sampling_rate: float, noise_multiplier: float) -> float:
    """Return the logarithm of the moment at an order above one, for a rate between zero and one.

    Guarantee: it is the figure of Opacus, to the last bit.
    """
    if float(order).is_integer():
        return _at_whole_order(int(order), sampling_rate, noise_multiplier)
    return _between_whole_orders(order, sampling_rate, noise_multiplier)


def _at_whole_order(order: int, sampling_rate: float, noise_multiplier: float) -> float:
    count = np.arange(order + 1)
    terms = _coefficients(order, sampling_rate, order + 1).first + _growth(count, noise_multiplier)
    total = -math.inf
    for term in terms.tolist():
        total = _log_add(total, term)
    return total


def _between_whole_orders(order: float, sampling_rate: float, noise_multiplier: float) -> float:
    count, log_sums = FIRST_TERMS, None
    while log_sums is None:
        log_sums = _series(order, sampling_rate, noise_multiplier, count)
        count *= 2
    return _log_add(*log_sums)


def _series(order: float, sampling_rate: float, noise_multiplier: float, count: int) -> tuple[float, float] | None:
    """Return the logarithms of both halves of the integral; None if so many terms are not enough."""
    from scipy import special

    i, coefficients = np.arange(count), _coefficients(order, sampling_rate, count)
    j = order - i
    middle, scale = noise_multiplier**2 * math.log(1 / sampling_rate - 1) + 0.5, math.sqrt(2) * noise_multiplier
    below = math.log(0.5) + (math.log(2) + special.log_ndtr(-((i - middle) / scale) * 2**0.5))
    above = math.log(0.5) + (math.log(2) + special.log_ndtr(-((middle - j) / scale) * 2**0.5))
    first = (coefficients.first + _growth(i, noise_multiplier) + below).tolist()
    last = (coefficients.last + _growth(j, noise_multiplier) + above).tolist()
    low = high = -math.inf
    for is_added, one, other in zip(coefficients.is_added, first, last, strict=True):
        if is_added:
            low, high = _log_add(low, one), _log_add(high, other)
        else:
            low, high = _log_subtract(low, one), _log_subtract(high, other)
        if max(one, other) < ENOUGH:
            return low, high
    return None


def _growth(count: NDArray[Any], noise_multiplier: float) -> NDArray[np.float64]:
    growth: NDArray[np.float64] = (count * count - count) / (2 * (noise_multiplier**2))
    return growth


class Coefficients(NamedTuple):
    """What sigma does not change of the terms of an order."""

    is_added: list[bool]
    first: NDArray[np.float64]
    """With the sampling rate to the power of the term's number."""
    last: NDArray[np.float64]
    """With it to the power of what is left of the order."""


@lru_cache(maxsize=4096)
def _coefficients(order: float, sampling_rate: float, count: int) -> Coefficients:
    from scipy import special

    chosen, left_out = math.log(sampling_rate), math.log(1 - sampling_rate)
    binomials = special.binom(order, np.arange(count)).tolist()
    logs = [math.log(abs(ways)) for ways in binomials]
    first = np.array([ways + i * chosen + (order - i) * left_out for i, ways in enumerate(logs)])
    last = np.array([ways + (order - i) * chosen + i * left_out for i, ways in enumerate(logs)])
    return Coefficients([ways > 0 for ways in binomials], first, last)


def _log_add(log_a: float, log_b: float) -> float:
    less, more = (log_b, log_a) if log_b < log_a else (log_a, log_b)
    return more if less == -math.inf else math.log1p(math.exp(less - more)) + more


def _log_subtract(log_a: float, log_b: float) -> float:
    if log_a < log_b:
        raise ValueError(f"Expected a sum that stays above zero, got {log_a} less {log_b}.")
    if log_b == -math.inf or log_a == log_b:
        return log_a if log_b == -math.inf else -math.inf
    try:
        return math.log(math.expm1(log_a - log_b)) + log_b
    except OverflowError:
        return log_a
