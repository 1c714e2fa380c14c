"""Repeatable sampling and noise, for simulations and tests only."""

import hashlib
import logging
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from client.vault.training.randomness import KeyStream, StepRandomness

log = logging.getLogger(__name__)


class SeededRandomnessForSimulation:
    """Derives every step's key from a seed and a context, so that a run can be repeated to the last bit.

    What is released with it is NOT private: whoever knows the seed subtracts the noise. It lives in `simulations`,
    which a node never imports.

    Args:
        seed: of the simulation.
        context: what tells this source from others of the same simulation: arm, site, round.
        drawn: numbers of noise that are drawn at once, where an arm uses the first few of another's; default: as many
            as are asked for.
        noise_seed: of noise and rounding, apart from that of batches; default: the same.
    """

    def __init__(self, seed: int, *context: str | int, drawn: int = 0, noise_seed: int | None = None) -> None:
        self._label = repr((seed, *context)).encode()
        self._noise_label = self._label if noise_seed is None else repr((noise_seed, *context)).encode()
        self._drawn = drawn
        self._steps = 0
        _warn_once()

    def step(self) -> StepRandomness:
        """Return the key of the next step t: SHA-256 over label and t."""
        batches, noise = (_FirstOf(self._key(label), self._drawn) for label in (self._label, self._noise_label))
        self._steps += 1
        return _Apart(batches, noise)

    def _key(self, label: bytes) -> bytes:
        return hashlib.sha256(b"fedvault simulation\0" + label + b"\0%d" % self._steps).digest()


class _Apart:
    """Draws batches by one key, noise and rounding by another, or by the same."""

    def __init__(self, batches: StepRandomness, noise: StepRandomness) -> None:
        self.poisson_batch = batches.poisson_batch
        self.discrete_gaussian, self.uniforms = noise.discrete_gaussian, noise.uniforms


class _FirstOf(KeyStream):
    """Draws more noise than is asked for: how many are drawn together changes every one of them."""

    def __init__(self, key: bytes, drawn: int) -> None:
        super().__init__(key)
        self._drawn = drawn

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Return the first `count` of more independent numbers."""
        return super().discrete_gaussian(max(count, self._drawn), scale)[:count]


@lru_cache(maxsize=1)
def _warn_once() -> None:
    log.warning("Noise is SEEDED: this simulation can be repeated, and what it releases is not private.")
