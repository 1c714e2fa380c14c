"""Poisson batches drawn before a round, so that a peer can be given the same ones, or have them counted."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.vault.training.randomness import KEY_BYTES, KeyStream, StepRandomness

Batches = list[NDArray[np.int64]]


def draw(records: int, *, steps: int, sampling_rate: float) -> Batches:
    """Draw one Poisson batch per step."""
    streams = (KeyStream(os.urandom(KEY_BYTES)) for _ in range(steps))
    return [stream.poisson_batch(records, sampling_rate) for stream in streams]


class Drawn:
    """A source of fresh noise whose batches were drawn before."""

    def __init__(self, batches: Sequence[NDArray[np.int64]]) -> None:
        self._left = iter(batches)

    def step(self) -> StepRandomness:
        """Return the next batch, and noise under a key of its own."""
        return _Step(next(self._left))


class _Step:
    def __init__(self, batch: NDArray[np.int64]) -> None:
        self._batch, self._stream = batch, KeyStream(os.urandom(KEY_BYTES))

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        """Return the batch that was drawn."""
        del count, sampling_rate
        return self._batch

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Draw fresh noise."""
        return self._stream.discrete_gaussian(count, scale)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Draw fresh numbers to round with."""
        return self._stream.uniforms(count)
