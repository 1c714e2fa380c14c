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
    """

    def __init__(self, seed: int, *context: str | int, drawn: int = 0) -> None:
        self._label = repr((seed, *context)).encode()
        self._drawn = drawn
        self._steps = 0
        _warn_once()

    def step(self) -> StepRandomness:
        """Return the key of the next step t: SHA-256 over label and t."""
        key = hashlib.sha256(b"fedvault simulation\0" + self._label + b"\0%d" % self._steps).digest()
        self._steps += 1
        return _FirstOf(key, self._drawn)


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
