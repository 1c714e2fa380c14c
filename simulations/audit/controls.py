"""Faults that an audit has to catch: without them its silence says nothing. They protect nobody, on purpose."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from client.vault.training.randomness import Randomness
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import PrivateTrainer
from shared.privacy.grid import NOISE_STEPS
from shared.secure_sum import masks
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


@contextmanager
def one_share_missing() -> Iterator[None]:
    """Have the other nodes of a sum add no noise: of two honest shares one is missing."""
    honest = RoundTrainer.summand

    def silent(site: RoundTrainer, *arguments: Any) -> NDArray[Any] | None:
        summand = honest(site, *arguments)
        # an empty site adds nothing but its noise
        return summand if summand is None or site.trainer().activations.records.unit_count else 0 * summand

    with patch.object(RoundTrainer, "summand", silent):
        yield


@contextmanager
def masks_of_zeros() -> Iterator[None]:
    """Let every mask of a secure sum be zeros, also where the sum is opened."""

    def zeros(_seed: bytes, length: int) -> NDArray[np.uint64]:
        return np.zeros(length, np.uint64)

    with patch("shared.secure_sum.masks.stream", zeros), patch("shared.secure_sum.session.stream", zeros):
        yield


@contextmanager
def masks_used_twice() -> Iterator[None]:
    """Let all rounds have the masks of round 1."""

    def of_one_round(seed: Callable[..., bytes]) -> Callable[..., bytes]:
        return lambda secret, context, *names: seed(secret, replace(context, round=1), *names)

    rooms = "shared.secure_sum.node", "shared.secure_sum.session"
    own, pair = of_one_round(masks.own_seed), of_one_round(masks.pair_seed)
    with (
        patch(f"{rooms[0]}.fresh", lambda: bytes(masks.OWN_MASK_BYTES)),
        patch(f"{rooms[0]}.own_seed", own),
        patch(f"{rooms[1]}.own_seed", own),
        patch(f"{rooms[0]}.pair_seed", pair),
    ):
        yield


def one_seed_twice(seed: int) -> Callable[[int], Randomness]:
    """Return a source that gives rounds 1 and 2 the same randomness, rounds 3 and 4, and so on."""
    return lambda number: SeededRandomnessForSimulation(seed, (number + 1) // 2)
