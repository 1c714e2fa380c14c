"""Repeatable sampling and noise, for simulations and tests only."""

import hashlib
import logging
from functools import lru_cache

from client.vault.randomness import KeyStream, StepRandomness

log = logging.getLogger(__name__)


class SeededRandomnessForSimulation:
    """Every step's key follows from a seed and a context, so a run can be repeated to the last bit.

    What is released with it is NOT private: whoever knows the seed subtracts the noise. It lives in `simulations`,
    which a node never imports.

    Args:
        seed: of the simulation.
        context: what tells this source from others of the same simulation: arm, site, round.
    """

    def __init__(self, seed: int, *context: str | int) -> None:
        self._label = repr((seed, *context)).encode()
        self._steps = 0
        _warn_once()

    def step(self) -> StepRandomness:
        """The key of step t is SHA-256 over label and t."""
        key = hashlib.sha256(b"fedvault simulation\0" + self._label + b"\0%d" % self._steps).digest()
        self._steps += 1
        return KeyStream(key)


@lru_cache(maxsize=1)
def _warn_once() -> None:
    log.warning("Noise is SEEDED: this simulation can be repeated, and what it releases is not private.")
