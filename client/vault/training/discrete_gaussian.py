"""Drawing from a discrete Gaussian by rejection (Canonne, Kamath & Steinke 2020, arXiv:2004.00010), many at a time.

A whole number x has a probability proportional to exp(-x² / 2 s²). Proposals are discrete Laplace of scale t, the power
of two nearest to s: u uniform below t, v geometric with ratio 1/e, a random sign, and x = u + t v. One is accepted with
probability exp(-u / t - (|x| - s² / t)² / 2 s²). All words are whole; what is rounded are the probabilities that they
are compared with.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Words = Callable[[int], NDArray[np.uint64]]
"""Returns so many fresh words of 64 random bits."""
TRIES = 2.2
"""Proposals for each number: 0.48 to 0.53 of them are accepted, by how far t is from s."""
AT_ONCE = 4.0
"""exp(-g) is decided in factors of no less than exp(-4), so that 53 bits hold each to a relative 2^-47."""
_BELOW = np.array([round(math.exp(-k) * 2**64) for k in range(1, 1 + int(AT_ONCE))], dtype=np.uint64)[::-1]


def discrete_gaussian(words: Words, count: int, scale: float) -> NDArray[np.int64]:
    """Draw independent whole numbers x with probabilities proportional to exp(-x² / 2 scale²).

    Guarantee: every number has its probability to a relative error of 2^-40, far out in the tails as well.

    Args:
        words: source of random bits.
        count: of numbers.
        scale: s > 0, their standard deviation where it is not small; at most 2^50.
    """
    drawn = [np.zeros(0, np.int64)]
    missing = count
    while missing > 0:
        drawn.append(_accepted(words, int(TRIES * missing) + 64, scale)[:missing])
        missing -= len(drawn[-1])
    return np.concatenate(drawn)


def _accepted(words: Words, tries: int, scale: float) -> NDArray[np.int64]:
    """Make proposals, and return those that are accepted, in their order."""
    step = 2 ** max(0, round(math.log2(scale)))
    place, negative = _split(words(tries), step)
    size = place + step * _geometric(words, tries)
    exponent = place / step + (size - scale**2 / step) ** 2 / (2 * scale**2)
    accepted = _happens(words, exponent) & ~(negative & (size == 0))  # zero has one sign
    drawn: NDArray[np.int64] = np.where(negative, -size, size)[accepted]
    return drawn


def _split(word: NDArray[np.uint64], step: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return numbers below `step`, a power of two of at most 2^50, and signs, from different bits."""
    return (word & np.uint64(step - 1)).astype(np.int64), (word >> np.uint64(63)).astype(bool)


def _geometric(words: Words, count: int) -> NDArray[np.int64]:
    """Draw whole numbers v >= 0 with probabilities proportional to exp(-v)."""
    drawn = np.zeros(count, np.int64)
    waiting = np.arange(count)
    while len(waiting):
        more = len(_BELOW) - np.searchsorted(_BELOW, words(len(waiting)), side="right")
        drawn[waiting] += more
        waiting = waiting[more == len(_BELOW)]
    return drawn


def _happens(words: Words, exponent: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Decide events of probability exp(-exponent) each."""
    happens = np.ones(len(exponent), bool)
    waiting, left = np.arange(len(exponent)), exponent
    while len(waiting):
        uniform = (words(len(waiting)) >> np.uint64(11)) * 2.0**-53
        so_far = uniform < np.exp(-np.minimum(left, AT_ONCE))
        happens[waiting[~so_far]] = False
        more = so_far & (left > AT_ONCE)
        waiting, left = waiting[more], left[more] - AT_ONCE
    return happens
