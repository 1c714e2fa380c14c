"""The step that follows from a secure sum, once it is open: a pure function of the sum and of public numbers.

| mode | the sum holds | the step |
|---|---|---|
| `masked` | updates on the public grid of 2^-32 | their mean, with the very bits of `mean.UniformMean` |
| `shared` | clipped gradients with the noise's shares, in gammas | - rate x gamma x sum / (q x typical_size x nodes) |

Whatever is done with an opened sum is post-processing: it costs no privacy.

The noise of a shared sum has a variance between 1 and (nodes in the sum) / h times (sigma C')². Less than the lower end
is no honest sum: a share is missing.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import numpy as np
from numpy.typing import NDArray

from shared.adapted_model.adapters import Layout
from shared.errors import PeerError
from shared.privacy.grid import GRID, NOISE_STEPS
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.study_steps import part_name, parts_in
from shared.protocol.fixed_point import mean_of
from shared.protocol.messages import Vector
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study
from shared.study.schedule import round_factors
from shared.study.sections import MOST_WEIGHT

Sum = NDArray[np.int64]
TAIL = 18.0
"""What happens with a probability below e^-18 counts as never."""


class Suspicion(StrEnum):
    """Why an opened sum is no sum of honest summands."""

    NOISE = "too-little-noise"
    NORM = "norm"


@dataclass(frozen=True)
class StepNumbers:
    """Public numbers of one round's step with shared noise."""

    rates: NDArray[np.float64]
    """Learning rate of every number, with the round's factor."""
    divisor: float
    """q x typical_size: what one node's sum is divided by."""
    gamma: float
    """Step of the gradients' grid, in gradient units."""
    noise_scale: float
    """Of the noise of h honest nodes, in steps of the grid."""
    honest: int
    """h."""
    largest_signal: float
    """The longest honest sum of one node without noise, in steps of the grid."""


def step_numbers(study: Study, layout: Layout, number: int, sizes: Thresholds) -> StepNumbers:
    """Return the public numbers of a round of a study with shared noise.

    Args:
        study: as declared.
        layout: of the packed adapter.
        number: of the round, from 1.
        sizes: of the run's roster.
    """
    schedule, federation = schedule_of(study), study.federation
    assert federation.typical_size is not None  # noqa: S101 - a study with shared noise has one
    (factor,) = round_factors(study, number)
    rate_of = {part.name: part.learning_rate for part in parts_in(study, layout.tensors, number)}
    rates = [np.full(math.prod(shape), factor * rate_of[part_name(name)]) for name, shape in layout.tensors]
    divisor = schedule.sampling_rate * federation.typical_size
    batch = MOST_WEIGHT * divisor  # of the heaviest site
    signal = (batch + 10 * math.sqrt(batch) + 10) / GRID
    scale = schedule.noise_multiplier * NOISE_STEPS
    return StepNumbers(np.concatenate(rates), divisor, GRID * schedule.clip_norm, scale, sizes.honest, signal)


def step_from_sum(total: Sum, nodes: int, numbers: StepNumbers) -> NDArray[np.float64]:
    """Return the update that an opened sum with shared noise makes.

    Args:
        total: the sum, modulo 2^64, in the order of the packed adapter.
        nodes: summands in it, |U|.
        numbers: of the round.
    """
    step: NDArray[np.float64] = numbers.rates * (-numbers.gamma / (numbers.divisor * nodes)) * total
    return step


def suspicion(total: Sum, nodes: int, numbers: StepNumbers) -> Suspicion | None:
    """Return why a sum cannot be one of honest summands; None if it can.

    The squared length of d numbers of noise is below d - 2 sqrt(d T) times their variance with a probability of e^-T
    (Laurent & Massart 2000, Lemma 1); gradients beside the noise make it longer in the mean.

    Args:
        total: the opened sum.
        nodes: summands in it.
        numbers: of the round.
    """
    length, dimension = float(np.linalg.norm(total.astype(np.float64))), len(total)
    shortest = numbers.noise_scale * math.sqrt(max(0.0, dimension - 2 * math.sqrt(TAIL * dimension)))
    if length < shortest:
        return Suspicion.NOISE
    loudest = numbers.noise_scale * math.sqrt(nodes / numbers.honest)
    if length > nodes * numbers.largest_signal + loudest * (math.sqrt(dimension) + math.sqrt(2 * TAIL)):
        return Suspicion.NORM
    return None


class OpenedSum:
    """Adds up summands modulo 2^64, as masks would have it: for simulations, where all is open.

    Args:
        length: of the packed adapter.
    """

    def __init__(self, length: int) -> None:
        self.total: Sum = np.zeros(length, np.int64)
        self.nodes = 0
        """Summands in it."""

    def add(self, update: Vector) -> None:
        """Add one summand, which travels where an update does."""
        if update.dtype != np.int64 or update.shape != self.total.shape:
            raise PeerError(f"Expected {len(self.total)} whole numbers, got {update.shape} of {update.dtype}.")
        self.total += cast(Sum, update)
        self.nodes += 1


def next_adapter(current: Vector, total: Sum, nodes: int, numbers: StepNumbers | None) -> Vector:
    """Return the adapter after a round with a secure sum, rounded to float32 once.

    Args:
        current: the adapter that the round began with.
        total: the opened sum.
        nodes: summands in it.
        numbers: of the round, with shared noise; None for masked updates.
    """
    step = mean_of(total, nodes) if numbers is None else step_from_sum(total, nodes, numbers)
    return (current.astype(np.float64) + step).astype(np.float32)
