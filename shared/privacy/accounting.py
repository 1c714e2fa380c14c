"""Compute the cost of a history of releases, as (epsilon, delta) for adding or removing one record.

RDP decides, because it is additive and monotone at every order. PRV is shown beside it, as a tighter figure for one
fixed schedule. Both come from Opacus, which is imported at first use because it loads PyTorch.

| releases | orders | why |
|---|---|---|
| fixed in advance, such as one study's schedule | the best one | RDP composes at each, so each gives a bound |
| chosen after seeing earlier ones, such as the studies on one dataset | one, fixed before the first | a Renyi filter |

The filter is that of Feldman & Zrnic 2021 (arXiv:2008.11193): releases may be chosen adaptively, their noise and number
too, as long as their sum at one fixed order stays within that order's budget. For the best of many orders it does not
hold: whoever sees a release picks the next one for the order that it favours. Two releases that come to 1.8 times the
delta stand in tests/shared/privacy/test_filter.py. Regehr et al. 2026 (arXiv:2602.15815) say which mechanisms could do
without.
"""

import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shared.checks import probability
from shared.privacy.releases import Release, merged

ORDERS = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(float(order) for order in (64, 72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 448, 512)),
)
"""Renyi orders: dense near 1, where large budgets are decided, and up to 512, where small ones are decided."""


def epsilon_rdp(history: Iterable[Release], delta: float, *, order: float | None = None) -> float:
    """Compose by Renyi DP (Mironov et al. 2019, arXiv:1908.10530) and convert (Balle et al. 2020, arXiv:1905.09982).

    Guarantee: never less than the true epsilon of the composed history at this delta.

    Args:
        history: releases; without `order` they have to be fixed in advance.
        delta: of the budget.
        order: the one order to convert from; None: the best of `ORDERS`.
    """
    probability(delta=delta)
    counts = merged(history)
    if not counts:
        return 0.0
    orders = ORDERS if order is None else (order,)
    return max(0.0, float(np.min(_converted(_curve(counts, orders), orders, delta))))


def best_order(release: Release, *, epsilon: float, delta: float) -> float:
    """Return the order at which a budget pays for most releases like this one.

    Whatever fits into the budget at the best order fits at this one, so it costs the first study on an account nothing.
    Later studies lose little: 0.0002 at epsilon 1, 0.005 at 3 and 0.07 at 8 in the mean over unlike pairs of studies.
    """
    curve = _curve(merged([release]), ORDERS)
    # how often it would fit: the part of the budget that an order leaves after conversion, by what the release takes
    often = (epsilon - _converted(np.zeros_like(curve), ORDERS, delta)) / np.maximum(curve, np.finfo(float).tiny)
    fits = _converted(curve, ORDERS, delta) <= epsilon
    return ORDERS[int(np.argmax(np.where(fits, often, -np.inf) if fits.any() else often))]


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
    alpha = np.asarray(orders)
    epsilon: NDArray[np.float64] = curve - (np.log(delta) + np.log(alpha)) / (alpha - 1) + np.log((alpha - 1) / alpha)
    return epsilon


def _curve(counts: Mapping[tuple[float, float], int], orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the Renyi divergence of a composition at each order (orders,)."""
    total = np.zeros(len(orders))
    for (noise_multiplier, sampling_rate), count in counts.items():
        total += count * np.asarray(_one_step(noise_multiplier, sampling_rate, orders))
    return np.where(np.isnan(total), np.inf, total)  # no figure is no bound


@lru_cache(maxsize=512)
def _one_step(noise_multiplier: float, sampling_rate: float, orders: tuple[float, ...]) -> tuple[float, ...]:
    from opacus.accountants.analysis import rdp

    curve = rdp.compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=orders)
    return tuple(np.asarray(curve, dtype=float).tolist())
