"""Bound epsilon from below by guesses about many canaries in one run.

Each of m canaries is in the data by a coin of its own. Whoever sees the release guesses for some of them whether they
are in; if the release is private, few such guesses can be right. With v right ones of r, "epsilon is at most this" is
refuted at a confidence of 1 - p = 95 %:

* for any (epsilon, delta) mechanism, q = e^epsilon / (1 + e^epsilon), B ~ Binomial(r, q), if at most p is
  P[B >= v] + 2 m delta max over 1 <= i <= v of (P[B >= v - i] - P[B >= v]) / i;
* for Gaussian noise, by recursion on its trade-off curve: with c = p v / m and w = p (r - v) / m at first, then for
  i = v - 1 down to 0: w' = max(w, Phi(Phi^-1(c) - mu)), c = min(1, c + (w' - w) i / (r - i)), w = w'. It is refuted if
  c + w exceeds r / m. Here mu = 1 / sigma is that of the Gaussian noise with this epsilon and delta.

The second is stronger. What it refutes is that the release hides a canary as well as that Gaussian noise does.

Source: Steinke et al. 2023, arXiv:2305.08846, Theorem 5.2; Mahloujifar et al. 2024, arXiv:2410.22235, Algorithm 3.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, log_ndtr, ndtr

SHARE = 0.05
"""Guesses on either side, as a share of the canaries; fixed before anything is measured."""
CONFIDENCE = 0.95
NORMAL = NormalDist()
LARGEST = 60.0
"""No epsilon and no mu beyond this is looked for."""


class Guesses(NamedTuple):
    """Guesses about canaries, and how many are right."""

    canaries: int
    guessed: int
    correct: int


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_], *, share: float = SHARE) -> Guesses:
    """Guess that the canaries with the highest scores are in, and that those with the lowest are not.

    Args:
        scores: of every canary (canaries,).
        included: the coins (canaries,).
        share: of guesses on either side; fixed before anything is measured.
    """
    each = int(share * len(scores))
    order = np.argsort(scores, kind="stable")
    correct = int(included[order[len(order) - each :]].sum() + (~included[order[:each]]).sum())
    return Guesses(len(scores), 2 * each, correct)


def epsilon_of_gaussian(guesses: Guesses, *, delta: float) -> float:
    """Return the largest epsilon at which Gaussian noise is refuted; 0 if none is.

    Args:
        guesses: about canaries of one run.
        delta: of the claim.
    """
    return gaussian_epsilon(_largest_refuted(lambda mu: _refutes_gaussian(guesses, mu)), delta=delta)


def epsilon_of_any(guesses: Guesses, *, delta: float) -> float:
    """Return the largest epsilon that is refuted for any (epsilon, delta) mechanism; 0 if none is.

    Args:
        guesses: about canaries of one run.
        delta: of the claim.
    """
    return _largest_refuted(lambda epsilon: _refutes_any(guesses, epsilon, delta))


def gaussian_epsilon(mu: float, *, delta: float) -> float:
    """Return the epsilon of one Gaussian release with sensitivity / standard deviation = mu.

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu).

    Source: Balle and Wang 2018, arXiv:1805.06530, Theorem 8.
    """

    def excess(epsilon: float) -> float:
        subtracted = math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu))
        return float(ndtr(mu / 2 - epsilon / mu)) - subtracted - delta

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    largest = mu**2 / 2 + mu * 10 + 1  # delta is below 1e-20 there
    return float(brentq(excess, 0.0, largest))


def _refutes_gaussian(guesses: Guesses, mu: float) -> bool:
    canaries, guessed, correct = guesses
    right = (1 - CONFIDENCE) * correct / canaries
    wrong = (1 - CONFIDENCE) * (guessed - correct) / canaries
    for i in range(correct - 1, -1, -1):
        # the standard library's: SciPy's are slow for single numbers, and bounds take many
        more = max(wrong, NORMAL.cdf(NORMAL.inv_cdf(right) - mu)) if right < 1 else 1.0
        if more == wrong:
            break  # neither changes any more
        right = min(1.0, right + (more - wrong) * i / (guessed - i))
        wrong = more
    return right + wrong > guessed / canaries


def _refutes_any(guesses: Guesses, epsilon: float, delta: float) -> bool:
    canaries, guessed, correct = guesses
    tails = stats.binom.sf(np.arange(correct, -1, -1) - 1, guessed, expit(epsilon))  # P[B >= v - i] for i = 0 … v
    steps = (tails[1:] - tails[0]) / np.arange(1, correct + 1)
    return bool(tails[0] + 2 * canaries * delta * steps.max(initial=0.0) <= 1 - CONFIDENCE)


def _largest_refuted(refuted: Callable[[float], bool]) -> float:
    """Bisect: what is refuted for some value is refuted for all smaller ones."""
    low, high = 0.0, LARGEST
    if not refuted(1e-9):
        return 0.0
    for _ in range(32):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
