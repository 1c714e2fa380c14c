"""Compute the noise that a budget needs: the inverse of accounting."""

import math
from collections.abc import Sequence
from functools import lru_cache

from shared.checks import positive, probability
from shared.errors import BudgetError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import Release, SharedGaussian, SubsampledGaussian
from shared.search import doubled_until, halved

LARGEST_NOISE = 10_000.0
DECIMALS = 4


def noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    history: Sequence[Release] = (),
    shared: bool = False,
) -> float:
    """Return the smallest sigma, to four decimals, that keeps a history with `steps` more releases within a budget.

    Guarantee: rounded up, so the history with these steps never costs more than `epsilon` at `delta`.

    With `shared` the noise is that of all nodes together, judged at the orders by which their ledgers judge it.

    Raises:
        BudgetError: the history alone costs more, or no practical noise is enough.
    """
    positive(epsilon=epsilon, steps=steps)
    probability(delta=delta, sampling_rate=sampling_rate)
    return _calibrated(
        epsilon, delta, sampling_rate, steps, tuple(history), SharedGaussian if shared else SubsampledGaussian
    )


@lru_cache(maxsize=128)
def _calibrated(
    epsilon: float, delta: float, rate: float, steps: int, history: tuple[Release, ...], kind: type[SubsampledGaussian]
) -> float:
    def cost(sigma: float) -> float:
        return epsilon_rdp([*history, kind(sigma, rate, steps)], delta)

    spent = epsilon_rdp(history, delta)
    if spent >= epsilon:
        raise BudgetError(f"Expected a history below epsilon={epsilon:g}, got one that costs {spent:.3f} already.")
    ends = doubled_until(lambda sigma: cost(sigma) <= epsilon, 1.0, most=LARGEST_NOISE)
    if ends is None:
        raise BudgetError(
            f"Expected a noise multiplier below {LARGEST_NOISE:g}, none keeps {steps} steps within {epsilon:g}.",
            hint="Raise privacy.epsilon or privacy.delta, or lower rounds, local_steps or privacy.sampling_rate.",
        )
    scale = 10.0**DECIMALS
    _, enough = halved(lambda sigma: cost(sigma) <= epsilon, *ends, near=lambda low, high: high - low <= 0.25 / scale)
    rounded = math.ceil(enough * scale) / scale
    return rounded if cost(rounded) <= epsilon else rounded + 1 / scale
