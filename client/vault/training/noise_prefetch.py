"""Drawing noise while a GPU computes the gradients that it will be added to.

A billion weights have a third of a million trained ones, whose noise takes the CPU as long as a GPU needs for several
records. It depends on nothing that is computed meanwhile.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from client.vault.training.randomness import StepRandomness
from shared.errors import ExactnessError


def prefetch_noise(randomness: StepRandomness, count: int, scale: float, device: torch.device) -> StepRandomness:
    """Return a step's randomness, with its noise being drawn already if gradients are computed on a GPU.

    Args:
        randomness: of one step.
        count: numbers of noise that the step will ask for.
        scale: of the noise that it will ask for, in steps of the grid.
        device: where gradients are computed; a CPU has no time to spare meanwhile.
    """
    return randomness if device.type == "cpu" else PrefetchedNoise(randomness, count, scale)


class PrefetchedNoise:
    """Randomness of one step whose noise another thread draws.

    Guarantee: noise drawn ahead is the step's own, asked for once and used once.
    """

    def __init__(self, randomness: StepRandomness, count: int, scale: float) -> None:
        self._randomness, self._asked = randomness, (count, scale)
        pool = ThreadPoolExecutor(1)  # of this step alone: a thread that lived longer would be missing after a fork
        self._noise: Future[NDArray[np.int64]] | None = pool.submit(randomness.discrete_gaussian, count, scale)
        pool.shutdown(wait=False)

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        """Draw the step's batch."""
        return self._randomness.poisson_batch(count, sampling_rate)

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Wait for the noise.

        Raises:
            ExactnessError: it was taken already, or other noise is asked for than was drawn.
        """
        noise, self._noise = self._noise, None
        if noise is None or (count, scale) != self._asked:
            read = "a second read" if noise is None else f"one for {count} of scale {scale:g}"
            raise ExactnessError(f"Expected one read of {self._asked[0]} numbers of noise, got {read}.")
        return noise.result()

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Draw the step's uniforms."""
        return self._randomness.uniforms(count)
