"""Round a noised update to what its encoding has, at random and without bias.

| wire | the two values around x | how far apart |
|---|---|---|
| `bfloat16` | x with its lower 16 bits cut off, and the next one | below 2^-7 of x |
| `int8` | neighbours on a grid of 255 values | an eighth of the noise near 0, a few percent of x far from it |

The upper one is taken with the probability that makes the mean x. What is rounded has its noise already, so this costs
no privacy; the grids are from public numbers, so they say nothing at all.
"""

import numpy as np
from numpy.typing import NDArray

from shared.adapted_model.adapters import Layout
from shared.adapted_model.measured import head_rate
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.update_bounds import largest_signal, noise_deviation
from shared.protocol.update_encoding import Encoding, Grid, Vector, parts
from shared.study.declaration import Study
from shared.study.schedule import round_factors

STEPS_PER_DEVIATION = 8
NOISE_DEVIATIONS = 5
LARGEST_BFLOAT16 = np.array([0x7F7F0000], np.uint32).view(np.float32)[0]
LOWER_HALF = 2**16


def encoding_for(study: Study, layout: Layout, *, declared_size: int, round_number: int) -> Encoding:
    """Return how a node encodes its update of one round.

    Guarantee: an encoding follows from the study, the round, the model's shapes and the declared size alone.

    Args:
        study: as agreed.
        layout: of the packed vector: the adapter's tensors, then the head's.
        declared_size: the site's public size.
        round_number: from 1.
    """
    if study.federation.wire != "int8":
        return Encoding(study.federation.wire)
    training, schedule = study.training, schedule_of(study)
    head = Layout(tuple((name, shape) for name, shape in layout.tensors if name.startswith("head."))).length
    factors = round_factors(study, round_number)
    batch = schedule.sampling_rate * declared_size
    divisor = schedule.sampling_rate * study.federation.divisor_size(declared_size)

    def grid(length: int, rate: float) -> Grid:
        bounds = {"rate": rate, "clip_norm": schedule.clip_norm, "divisor": divisor}
        noise = noise_deviation(factors=factors, noise_multiplier=schedule.noise_multiplier, **bounds)
        largest = largest_signal(factors=factors, expected_batch=batch, **bounds) + NOISE_DEVIATIONS * noise
        return Grid.fitted(length, largest=largest, finest=noise / STEPS_PER_DEVIATION)

    adapter = grid(layout.length - head, training.adapter_learning_rate)
    return Encoding("int8", (adapter, grid(head, head_rate(study, round_number))))


def rounded(update: Vector, encoding: Encoding, uniforms: NDArray[np.float64]) -> Vector:
    """Round every value to one of the two around it that the encoding has; beyond a grid's ends, to the end.

    Guarantee: rounding reads the noised update, its public encoding and random numbers of its own, and nothing else.
    Guarantee: between a grid's ends the mean over the random numbers is the value itself, and no draw is further from
    it than one step.

    Args:
        update: packed, noised, all finite.
        encoding: from `encoding_for`.
        uniforms: one for each value, strictly between 0 and 1.
    """
    if encoding.wire == "float32":
        return update
    if encoding.wire == "bfloat16":
        return _to_bfloat16(update, uniforms)
    starts = np.cumsum([0, *(grid.length for grid in encoding.grids)])
    return np.concatenate(
        [
            _to_grid(part, grid.values(), uniforms[start : start + grid.length])
            for start, (part, grid) in zip(starts, parts(update, encoding.grids), strict=False)
        ]
    )


def _to_bfloat16(update: Vector, uniforms: NDArray[np.float64]) -> Vector:
    # what is added to the lower half carries into the upper one as often as the lower half is large
    added = update.view(np.uint32) + (uniforms * LOWER_HALF).astype(np.uint32)
    cut = (added & np.uint32(0xFFFF0000)).view(np.float32)
    return np.clip(cut, -LARGEST_BFLOAT16, LARGEST_BFLOAT16)


def _to_grid(part: Vector, grid: Vector, uniforms: NDArray[np.float64]) -> Vector:
    points = grid.astype(np.float64)
    inside = np.clip(part.astype(np.float64), points[0], points[-1])
    below = np.clip(np.searchsorted(points, inside, side="right") - 1, 0, len(points) - 2)
    share = (inside - points[below]) / (points[below + 1] - points[below])
    return grid[below + (uniforms < share)]
