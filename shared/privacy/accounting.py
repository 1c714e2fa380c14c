"""Compute the cost of a history of releases, as (epsilon, delta) for adding or removing one record.

RDP decides: it is additive, monotone, and as a filter sound for adaptively chosen releases. PRV is shown beside it, as
a tighter figure for one fixed schedule. Both come from Opacus, which is imported at first use because it loads PyTorch.
"""

import warnings
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from shared.checks import probability
from shared.privacy.releases import Release, merged

ORDERS = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(float(order) for order in (64, 72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 448, 512)),
)
"""Renyi orders: dense near 1, where large budgets are decided, and up to 512, where small ones are decided."""


def epsilon_rdp(history: Iterable[Release], delta: float) -> float:
    """Compose by Renyi DP (Mironov et al. 2019, arXiv:1908.10530) and convert (Balle et al. 2020, arXiv:1905.09982).

    Guarantee: never less than the true epsilon of the composed history at this delta.
    """
    probability(delta=delta)
    counts = merged(history)
    if not counts:
        return 0.0
    from opacus.accountants.analysis import rdp

    total = np.zeros(len(ORDERS))
    for (noise_multiplier, sampling_rate), count in counts.items():
        total += count * np.asarray(_one_step(noise_multiplier, sampling_rate))
    with warnings.catch_warnings():
        # "the optimal order is the largest": the bound is then valid and a little loose
        warnings.simplefilter("ignore", UserWarning)
        epsilon, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=total, delta=delta)
    return max(0.0, float(epsilon))


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


@lru_cache(maxsize=512)
def _one_step(noise_multiplier: float, sampling_rate: float) -> tuple[float, ...]:
    from opacus.accountants.analysis import rdp

    curve = rdp.compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=ORDERS)
    return tuple(np.asarray(curve, dtype=float).tolist())
