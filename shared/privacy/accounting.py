"""Compute the cost of a history of releases, as (epsilon, delta) for adding or removing one record.

RDP decides, because it is additive and monotone at every order. PRV is shown beside it, as a tighter figure for one
fixed schedule. Both are Opacus' figures: `shared.privacy.moments` computes those of RDP, and Opacus is imported for PRV
alone, at first use, because it loads PyTorch.

| releases | orders | why |
|---|---|---|
| fixed in advance, such as one study's schedule | the best one | RDP composes at each, so each gives a bound |
| chosen after seeing earlier ones, such as the studies on one dataset | one, fixed before the first | a Renyi filter |

Of a run with an evaluation a unit is trained on or held out (`LargestSide`): the run costs, at each order, what the
dearer of both costs, and runs add up. Which side a unit is on follows from the unit and the node's key alone, so it
depends on no release; each side may still be chosen after seeing the other's releases, which the unit does not move.

The filter is that of Feldman & Zrnic 2021 (arXiv:2008.11193): releases may be chosen adaptively, their noise and number
too, as long as their sum at one fixed order stays within that order's budget. For the best of many orders it does not
hold: whoever sees a release picks the next one for the order that it favours. Two releases that come to 1.8 times the
delta stand in tests/shared/privacy/test_filter.py. Regehr et al. 2026 (arXiv:2602.15815) say which mechanisms could do
without.

A history with a shared release (`SharedGaussian`) is judged at whole orders throughout. There the moments of a sum over
the grid are the continuous Gaussian's exactly, for Poisson samples too and in both directions (`shared.privacy.grid`).
The sum of h discrete Gaussians is none itself: it costs at most tau x d more (Kairouz et al. 2021, arXiv:2102.06387,
Prop. 14), and with Poisson samples half as much again. An account that was judged at another order before has the chord
of what the two whole orders around it give: the logarithm of a moment is convex in its order.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shared.checks import positive, probability
from shared.privacy.grid import MOST_NUMBERS
from shared.privacy.moments import log_moment
from shared.privacy.releases import (
    LargestSide,
    Release,
    SharedGaussian,
    Spending,
    has_shared,
    if_colluding,
    merged,
)

ORDERS = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(float(order) for order in (64, 72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 448, 512)),
)
"""Renyi orders: dense near 1, where large budgets are decided, and up to 512, where small ones are decided."""
WHOLE_ORDERS = (*(float(order) for order in range(2, 64)), *(order for order in ORDERS if order >= 64))
"""Those of a history with a shared release."""


LEAST_SIGMA = 1e-100
"""Squared it is above zero; with less, Opacus' own figures stand."""
SUBSAMPLED_TAU = 1.5
"""Factor on tau for sums over Poisson samples."""


def epsilon_rdp(history: Iterable[Spending], delta: float, *, order: float | None = None) -> float:
    """Compose by Renyi DP (Mironov et al. 2019, arXiv:1908.10530) and convert (Balle et al. 2020, arXiv:1905.09982).

    Guarantee: never less than the true epsilon of the composed history at this delta.

    Args:
        history: releases; without `order` they have to be fixed in advance.
        delta: of the budget.
        order: the one order to convert from; None: the best of `ORDERS`, or of `WHOLE_ORDERS` with a shared release.
    """
    releases = [release for release in history if release.count]
    if not releases:
        return 0.0
    orders = orders_for(releases) if order is None else (order,)
    return max(0.0, float(np.min(_converted(_curve(releases, orders), orders, delta))))


def epsilon_if_colluding(
    history: Iterable[Spending], delta: float, *, colluders: int | None = None, order: float | None = None
) -> float:
    """Return what a history costs if more nodes collude than its shared releases are made for.

    Guarantee: against so many colluders in each shared release, never less than the true epsilon.

    Args:
        history: as for `epsilon_rdp`.
        delta: of the budget.
        colluders: nodes that pool what they know with the server; None: all others.
        order: as for `epsilon_rdp`.
    """
    return epsilon_rdp(if_colluding(history, colluders), delta, order=order)


def orders_for(history: Iterable[Spending]) -> tuple[float, ...]:
    """Return the Renyi orders at which a history may be judged."""
    return WHOLE_ORDERS if has_shared(history) else ORDERS


def order_of_limit(epsilon: float, delta: float) -> float:
    """Return a whole Renyi order that suits a budget whatever is released: the one that pays for most of its sums.

    Full batches of Gaussian noise cost rho x order each, with rho half their squared ratio of signal to noise.
    """
    positive(epsilon=epsilon)
    orders = np.asarray(WHOLE_ORDERS)
    rho = (epsilon - _converted(np.zeros(len(orders)), WHOLE_ORDERS, delta)) / orders
    return WHOLE_ORDERS[int(np.argmax(rho))]


def best_order(release: Spending, *, epsilon: float, delta: float) -> float:
    """Return the order at which a budget pays for most releases like this one.

    Whatever fits into the budget at the best order fits at this one, so it costs the first study on an account nothing.
    Later studies lose little: 0.0002 at epsilon 1, 0.005 at 3 and 0.07 at 8 in the mean over unlike pairs of studies.
    """
    orders = orders_for([release])
    curve = _curve([release], orders)
    # how often it would fit: the part of the budget that an order leaves after conversion, by what the release takes
    often = (epsilon - _converted(np.zeros_like(curve), orders, delta)) / np.maximum(curve, np.finfo(float).tiny)
    fits = _converted(curve, orders, delta) <= epsilon
    return orders[int(np.argmax(np.where(fits, often, -np.inf) if fits.any() else often))]


def epsilon_prv(history: Iterable[Release], delta: float) -> float | None:
    """Compose privacy random variables numerically; an upper bound, or None where the numerics fail.

    They fail at extreme settings: large budgets per step, or a delta below the resolution of float64.
    """
    probability(delta=delta)
    counts = merged(history)
    if not counts:
        return 0.0
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(sigma, rate, count) for (sigma, rate), count in sorted(counts.items())]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it sizes its grid by RDP, which may warn as above
            epsilon = float(accountant.get_epsilon(delta=delta))
    except (ValueError, RuntimeError):
        return None
    return epsilon if np.isfinite(epsilon) else None


def _converted(curve: NDArray[np.float64], orders: tuple[float, ...], delta: float) -> NDArray[np.float64]:
    """Return the epsilon that each order makes of its Renyi divergence: Balle et al. 2020, Theorem 21."""
    probability(delta=delta)
    alpha = np.asarray(orders)
    epsilon: NDArray[np.float64] = curve - (np.log(delta) + np.log(alpha)) / (alpha - 1) + np.log((alpha - 1) / alpha)
    return epsilon


def _curve(history: Sequence[Spending], orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the Renyi divergence of a composition at each order (orders,)."""
    total = np.zeros(len(orders))
    for spent in history:
        if isinstance(spent, LargestSide):
            total += np.max([_curve(side, orders) for side in spent.sides], axis=0)
    counts = merged(release for release in history if not isinstance(release, SharedGaussian | LargestSide))
    for (noise_multiplier, sampling_rate), count in counts.items():
        total += count * np.asarray(_one_step(noise_multiplier, sampling_rate, orders))
    shared = [release for release in history if isinstance(release, SharedGaussian)]
    for (noise_multiplier, sampling_rate), count in merged(shared).items():
        total += count * np.asarray(_one_shared_step(noise_multiplier, sampling_rate, orders))
    for release in shared:
        total += release.count * SUBSAMPLED_TAU * tau(release) * MOST_NUMBERS
    return np.where(np.isnan(total), np.inf, total)  # no figure is no bound


def tau(release: SharedGaussian) -> float:
    """Return what a sum of discrete Gaussians costs for each of its numbers beyond one discrete Gaussian.

    10 x sum over k < h of exp(-2 pi² s² k / (k + 1)), with s the scale of one share in steps of the grid: nothing that
    float64 can tell from zero at the scales that are used.
    """
    if not release.settled:
        return 0.0
    exponents = (2 * math.pi**2 * release.own_scale**2 * k / (k + 1) for k in range(1, release.honest))
    return 10 * sum(math.exp(-exponent) for exponent in exponents)


def _one_shared_step(noise_multiplier: float, sampling_rate: float, orders: tuple[float, ...]) -> tuple[float, ...]:
    """Return one step's divergence from whole orders alone: between two of them, their chord."""
    below = tuple(float(math.floor(order)) for order in orders)
    around = tuple(sorted({*below, *(order + 1 for order in below)} - {1.0}))
    by_order = dict(zip(around, _one_step(noise_multiplier, sampling_rate, around), strict=True)) | {1.0: 0.0}
    divergences = []
    for order, lower in zip(orders, below, strict=True):
        share = order - lower
        moment = (1 - share) * (lower - 1) * by_order[lower] + share * lower * by_order[lower + 1]
        divergences.append(moment / (order - 1))
    return tuple(divergences)


@lru_cache(maxsize=512)
def _one_step(noise_multiplier: float, sampling_rate: float, orders: tuple[float, ...]) -> tuple[float, ...]:
    if 0.0 < sampling_rate < 1.0 and noise_multiplier > LEAST_SIGMA:
        return tuple(log_moment(order, sampling_rate, noise_multiplier) / (order - 1) for order in orders)
    from opacus.accountants.analysis import rdp

    curve = rdp.compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=orders)
    return tuple(np.asarray(curve, dtype=float).tolist())
