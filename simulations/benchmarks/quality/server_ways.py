"""Ways for a server to combine updates and to step: the ones that were tried, whatever came of them.

A step is a function of one round's updates, of public numbers and of what the step before remembered. Only the mean and
the geometric median are methods of the server.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.aggregation.geometric_median import geometric_median

Array = NDArray[np.float64]
FIRST_DECAY, SECOND_DECAY = 0.9, 0.99
USUAL_SIGNAL = 0.25
"""Share of the longest signal that clipping leaves room for; 0.02 to 0.12 was measured."""


@dataclass
class RoundNumbers:
    """The public numbers of one round, and what a way remembers from round to round."""

    number: int
    """From 0."""
    deviations: Sequence[float]
    """Of the noise in one value of each site's update."""
    first_deviation: float
    """Of the noise in one value of the first round's mean."""
    lengths: Sequence[float]
    """That each site's update has at most, if its signal is no more than `USUAL_SIGNAL` of the longest."""
    factor: float
    """Mean factor on the rate of this round's steps."""
    memory: dict[str, Any] = field(default_factory=dict)


Combine = Callable[[RoundNumbers, Sequence[Array]], Array]


def mean(_numbers: RoundNumbers, updates: Sequence[Array]) -> Array:
    """Return the mean."""
    step: Array = np.mean(updates, axis=0)
    return step


def momentum(decay: float) -> Combine:
    """Return momentum at the server whose weights add up to 1 (Hsu et al. 2019, arXiv:1909.06335)."""

    def step(numbers: RoundNumbers, updates: Sequence[Array]) -> Array:
        velocity: Array = decay * numbers.memory.get("velocity", 0.0) + (1 - decay) * np.mean(updates, axis=0)
        numbers.memory["velocity"] = velocity
        return velocity

    return step


def adaptive(rate: float, *, yogi: bool = False) -> Combine:
    """Return FedAdam or FedYogi (Reddi et al. 2021, arXiv:2003.00295), without the noise's known part of v.

    Rate and tau are in units of the noise of the first mean; the rate falls as the sites' own does. Both moments are
    corrected for beginning at zero, as in Adam, which Reddi et al. leave out.
    """

    def step(numbers: RoundNumbers, updates: Sequence[Array]) -> Array:
        memory, count, delta = numbers.memory, len(updates), np.mean(updates, axis=0)
        power = delta**2 - sum(deviation**2 for deviation in numbers.deviations) / count**2
        first = FIRST_DECAY * memory.get("first", 0.0) + (1 - FIRST_DECAY) * delta
        power_mean = memory.get("power", 0.0)
        if yogi:
            power_mean = power_mean - (1 - SECOND_DECAY) * np.abs(power) * np.sign(power_mean - power)
        else:
            power_mean = SECOND_DECAY * power_mean + (1 - SECOND_DECAY) * power
        memory |= {"first": first, "power": power_mean}
        steps = numbers.number + 1
        size = np.sqrt(np.maximum(power_mean / (1 - SECOND_DECAY**steps), 0.0)) + numbers.first_deviation
        moved: Array = rate * numbers.first_deviation * numbers.factor * first / (1 - FIRST_DECAY**steps) / size
        return moved

    return step


def clipped_mean(numbers: RoundNumbers, updates: Sequence[Array]) -> Array:
    """Return the mean of updates that are cut at their public length."""
    lengths = [max(float(np.linalg.norm(update)), 1e-30) for update in updates]
    cut = [min(1.0, most / length) for most, length in zip(numbers.lengths, lengths, strict=True)]
    return mean(numbers, [factor * update for factor, update in zip(cut, updates, strict=True)])


def median_of_each(_numbers: RoundNumbers, updates: Sequence[Array]) -> Array:
    """Return the median of each number by itself."""
    step: Array = np.median(updates, axis=0)
    return step


def median(_numbers: RoundNumbers, updates: Sequence[Array]) -> Array:
    """Return the server's own geometric median."""
    rows = [update.astype(np.float32).ravel() for update in updates]
    return geometric_median(rows, [slice(0, rows[0].size)]).reshape(updates[0].shape)


@dataclass(frozen=True)
class ServerWay:
    """One way that is measured."""

    combine: Combine = mean
    rate: float = 1.0
    """Factor on the plan's rate."""
    proximal: float = 0.0
    """mu of FedProx, on the sites' steps after the noise (Li et al. 2020, arXiv:1812.06127)."""
    averaged: int = 1
    """Rounds whose adapters are averaged at the end."""


WAYS = {
    "mean": ServerWay(),
    "last two rounds averaged": ServerWay(averaged=2),
    "momentum 0.5": ServerWay(momentum(0.5)),
    "momentum 0.9, twice the rate": ServerWay(momentum(0.9), rate=2.0),
    "FedAdam, 3": ServerWay(adaptive(3.0)),
    "FedAdam, 10": ServerWay(adaptive(10.0)),
    "FedYogi, 10": ServerWay(adaptive(10.0, yogi=True)),
    "FedProx, 0.003": ServerWay(proximal=0.003),
    "clipped mean": ServerWay(clipped_mean),
    "median of each number": ServerWay(median_of_each),
    "geometric median": ServerWay(median),
}
ROBUST = ("mean", "clipped mean", "median of each number", "geometric median")


def usual_length(*, rate: float, signal: float, deviation: float, dimension: int) -> float:
    """Return the public length at which an update is cut: eta C (0.25 F1 B + sigma sqrt(F2) (sqrt(d) + 6)) / L.

    Args:
        rate: eta.
        signal: F1 B / L, the longest signal at a rate of 1.
        deviation: of the noise in one value.
        dimension: d.
    """
    return USUAL_SIGNAL * rate * signal + deviation * (math.sqrt(dimension) + 6)
