"""Faults that an audit has to catch: without them its silence says nothing. They protect nobody, on purpose."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from client.vault.training.randomness import Randomness
from shared.privacy.grid import NOISE_STEPS
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

OPTIMIZER = "client.vault.training.optimizer"


@contextmanager
def half_the_noise() -> Iterator[None]:
    """Draw noise of half the standard deviation that is accounted for."""
    with patch(f"{OPTIMIZER}.NOISE_STEPS", NOISE_STEPS / 2):
        yield


@contextmanager
def without_clipping() -> Iterator[None]:
    """Add gradients as long as they are. Without the check of their exact length, too: it would hide the fault."""

    def unclipped(groups: list[torch.Tensor], **_: Any) -> list[torch.Tensor]:
        return [torch.ones_like(rows[:, 0]) for rows in groups]

    def fits(rows: torch.Tensor, _longest: float) -> torch.Tensor:
        return torch.ones_like(rows[:, 0], dtype=torch.bool)

    with patch(f"{OPTIMIZER}.clip_factors", unclipped), patch(f"{OPTIMIZER}._fits", fits):
        yield


def one_seed_twice(seed: int) -> Callable[[int], Randomness]:
    """Return a source that gives rounds 1 and 2 the same randomness, rounds 3 and 4, and so on."""
    return lambda number: SeededRandomnessForSimulation(seed, (number + 1) // 2)
