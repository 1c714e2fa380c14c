"""Canaries: records whose gradient is one direction of the trained space, orthogonal to all other canaries'."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import hadamard

from client.vault.training.trainer import PrivateTrainer
from shared.errors import SettingsError

BLOCK = 64
"""Trained numbers that a direction is spread over."""
LENGTH = 10.0
"""A canary's gradient in clipping norms: so long that clipping shortens it."""


class Canaries:
    """Orthonormal directions of spaces of any size, found again in what is released.

    A public permutation scatters the numbers of each block over all trained tensors. Within a block the directions are
    the rows of a Hadamard matrix.

    Args:
        count: number of canaries.
        seed: of the permutation.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        self.count, self._seed = count, seed
        self._rows: NDArray[np.float32] = (hadamard(BLOCK) / np.sqrt(BLOCK)).astype(np.float32)
        self.sign = 1.0
        """Of all canaries' gradients; whoever chooses the adapter can turn a gradient round."""

    def gradients(self, chosen: NDArray[np.int64], numbers: int) -> NDArray[np.float32]:
        """Return the gradients of some canaries (chosen, numbers), each of length `LENGTH`."""
        gradients = np.zeros((len(chosen), numbers), np.float32)
        places = self._places(numbers)[chosen // BLOCK]
        np.put_along_axis(gradients, places, self._rows[chosen % BLOCK], axis=1)
        return (self.sign * LENGTH * gradients).astype(np.float32)

    def scores(self, release: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far a release goes in each canary's direction (canaries,)."""
        inner = release[self._places(len(release))] @ self._rows.astype(np.float64)  # a Hadamard matrix is symmetric
        return self.sign * inner.ravel()[: self.count]

    def _places(self, numbers: int) -> NDArray[np.int64]:
        blocks = -(-self.count // BLOCK)
        if blocks * BLOCK > numbers:
            raise SettingsError(f"Expected at most {numbers // BLOCK * BLOCK} canaries, got {self.count}.")
        return np.random.default_rng(self._seed).permutation(numbers)[: blocks * BLOCK].reshape(blocks, BLOCK)


def plant(trainer: PrivateTrainer, canaries: Canaries, of_record: NDArray[np.int64]) -> None:
    """Give records the gradients of canaries; all that is done with gradients afterwards is the trainer's own.

    Args:
        trainer: on these records.
        canaries: to plant.
        of_record: the canary that each record is (records,).
    """
    honest = trainer.per_example_gradients

    def planted(indices: Sequence[int]) -> None:
        honest(indices)
        trained = [p for _, p in sorted(trainer.model.named_parameters()) if p.requires_grad]
        rows = torch.from_numpy(canaries.gradients(of_record[list(indices)], sum(p.numel() for p in trained)))
        parts = torch.split(rows * trainer.plan.clip_norm, [p.numel() for p in trained], dim=1)
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad_sample = part.view(-1, *parameter.shape).to(parameter)  # type: ignore[attr-defined]

    trainer.per_example_gradients = planted  # type: ignore[method-assign]
