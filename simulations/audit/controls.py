"""Faults that an audit has to catch: without them its silence says nothing. They protect nobody, on purpose."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from numpy.typing import NDArray

from client.vault.training.randomness import Randomness
from client.vault.training.trainer import PrivateTrainer
from shared.privacy.grid import NOISE_STEPS
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

OPTIMIZER = "client.vault.training.optimizer"


@contextmanager
def part_of_the_noise(parts: int) -> Iterator[None]:
    """Draw noise of a half, a third, … of the standard deviation that is accounted for."""
    with patch(f"{OPTIMIZER}.NOISE_STEPS", NOISE_STEPS / parts):
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


@contextmanager
def divisor_from_the_data() -> Iterator[None]:
    """Divide by the number of records that there are, instead of the size that was declared."""
    honest = PrivateTrainer.train_round

    def counted(trainer: PrivateTrainer, *arguments: Any, **named: Any) -> NDArray[Any]:
        trainer.divisor = trainer.plan.sampling_rate * trainer.activations.records.unit_count
        return honest(trainer, *arguments, **named)

    with patch.object(PrivateTrainer, "train_round", counted):
        yield


def one_seed_twice(seed: int) -> Callable[[int], Randomness]:
    """Return a source that gives rounds 1 and 2 the same randomness, rounds 3 and 4, and so on."""
    return lambda number: SeededRandomnessForSimulation(seed, (number + 1) // 2)
