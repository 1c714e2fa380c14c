"""Clip per record, round to a public grid, sum, add noise once, divide by a public number: one step of DP-SGD on
Opacus' optimizer.

Where the unit of privacy is a group of records, the one gradient of such a unit takes the place of a record's.

| edge case | what happens |
|---|---|
| a record's gradient is NaN or infinite | it counts as zero, the step goes on |
| the Poisson batch is empty | the step is pure noise; it is never skipped |
| a record cannot be used (unknown label, empty text) | its gradient is zero by its loss |
| the batch is larger than memory | `accumulate` any number of physical parts, then one `step` with one noise draw |
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from client.vault.training.linear_gradients import check_gradients
from client.vault.training.randomness import StepRandomness
from shared.errors import ExactnessError
from shared.privacy.grid import GRID, MOST_NUMBERS, NOISE_STEPS

AUTOMATIC_STABILITY = 0.01  # gamma of AUTO-S, as a fraction of clip_norm


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc] # Opacus ships no types
    """Descent, SGD by default, on the noisy sum of clipped per-example gradients.

    The sum and its noise are whole numbers, in steps of the grid gamma = 2^-24 clip_norm. They are kept in float64,
    which is exact: they stay far below 2^53. Whatever is divided and rounded afterwards has its noise.

    Guarantee: adding or removing one record moves the sum that the noise is added to by at most
    `sensitivity(clip_norm)`, exactly, whatever the order of addition.
    Guarantee: every step adds exactly one draw of discrete Gaussian noise with standard deviation noise_multiplier x
    `sensitivity(clip_norm)`.
    Guarantee: a record whose rounded gradient is longer than clipping allows counts as zero.

    Args:
        parameter_groups: dicts with `params` and `lr`, as torch.optim.SGD takes them; with `share` too, each group is
            clipped by itself at clip_norm x sqrt(share); shares add up to 1, so the whole is bounded by clip_norm.
        noise_multiplier: sigma; >= 0.
        clip_norm: C, in gradient units.
        divisor: L = sampling rate x declared size; public, never the true batch size.
        clipping: `flat` min(1, C/|g|), or `automatic` C/(|g| + 0.01 C) (Bu et al. 2023, arXiv:2206.07136, AUTO-S).
        weight: public factor on every clipped gradient, before it is rounded; at most 1.
        descent: what is done with the noisy mean, such as torch.optim.SGD; it sees nothing else.
    """

    def __init__(
        self,
        parameter_groups: list[dict[str, Any]],
        *,
        noise_multiplier: float,
        clip_norm: float,
        divisor: float,
        clipping: Literal["automatic", "flat"],
        weight: float = 1.0,
        descent: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = torch.optim.SGD,
    ) -> None:
        super().__init__(
            descent(parameter_groups),
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self.divisor, self.noise_scale = divisor, NOISE_STEPS * noise_multiplier
        if not 0 < weight <= 1:
            raise ExactnessError(f"Expected a weight of at most 1, for the noise is made for clip_norm, got {weight}.")
        self.clipping, self.weight = clipping, weight
        self.seen, self.scaled_down = 0, torch.zeros((), dtype=torch.int64)  # private: for the node's operator alone
        self._randomness: StepRandomness | None = None
        # of all parameters, in their order and in steps of the grid; stands for Opacus' many
        self.summed: Tensor | None = None

    def accumulate(self, records: int) -> None:
        """Clip and add the per-example gradients that the last backward pass left on the parameters.

        Raises:
            ExactnessError: a trainable parameter has no gradient, or not one per record.
        """
        check_gradients(self.params, records)
        self.clip_and_accumulate()
        for parameter in self.params:
            parameter.grad_sample = None

    def clip_and_accumulate(self) -> None:
        """Add the clipped gradients to `summed`, with a factor of 0 for anything that is not finite.

        What is clipped together is one matrix (records, numbers): a GPU is kept waiting by many small tensors.
        """
        groups, clip_norms = self._clipped_together()
        wide = [torch.cat([p.grad_sample.flatten(1) for p in group], dim=1).double() for group in groups]
        factors = clip_factors(wide, clip_norms=clip_norms, clipping=self.clipping)
        untouched = 1.0 if self.clipping == "flat" else 1.0 / (1.0 + AUTOMATIC_STABILITY)
        shortened = torch.stack(factors).amin(dim=0) < untouched
        self.seen += len(shortened)
        self.scaled_down = self.scaled_down + shortened.sum()  # a number only at the round's end: no wait for a GPU
        gamma = GRID * float(self.max_grad_norm)
        scale = self.weight / gamma
        steps = [on_grid(rows, each * scale) for rows, each in zip(wide, factors, strict=True)]
        fits = torch.stack([_fits(rows, norm * scale) for rows, norm in zip(steps, clip_norms, strict=True)])
        # a sum of whole numbers: the same whatever the order
        summed = torch.cat([fits.all(dim=0).double() @ rows for rows in steps])
        self.summed = summed if self.summed is None else self.summed + summed

    def _clipped_together(self) -> tuple[list[list[Any]], list[float]]:
        """Parameters that are clipped as one vector, and at which length."""
        shares = [group.get("share") for group in self.param_groups]
        if None in shares:
            return [list(self.params)], [float(self.max_grad_norm)]
        if not math.isclose(sum(shares), 1.0):
            raise ExactnessError(f"Expected shares of the clipping norm that add up to 1, got {shares}.")
        return [list(group["params"]) for group in self.param_groups], [
            float(self.max_grad_norm) * math.sqrt(share) for share in shares
        ]

    def noisy_step(self, randomness: StepRandomness) -> None:
        """Finish one logical batch: noise, division, descent. An empty batch is pure noise."""
        self._randomness = randomness
        self.add_noise()
        self._randomness = None
        self.original_optimizer.step()
        self.zero_grad()

    def noisy_sum(self, randomness: StepRandomness) -> NDArray[np.int64]:
        """Finish one logical batch, and return the sum with its noise in steps of the grid, modulo 2^64.

        Guarantee: between the noise and what is returned no number is looked at, changed or checked.
        """
        count = self._count()
        summed = np.zeros(count, np.int64) if self.summed is None else self.summed.to(torch.int64).cpu().numpy()
        self.zero_grad()
        noisy: NDArray[np.int64] = summed + randomness.discrete_gaussian(count, self.noise_scale)
        return noisy

    def _count(self) -> int:
        """Return how many numbers are trained.

        Raises:
            ExactnessError: more than the grid is made for.
        """
        count: int = sum(parameter.numel() for parameter in self.params)
        if count > MOST_NUMBERS:
            raise ExactnessError(f"Expected at most {MOST_NUMBERS} numbers to be trained, got {count}.")
        return count

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget everything of the logical batch."""
        self.summed = None
        super().zero_grad(set_to_none)

    def add_noise(self) -> None:
        """Leave (sum + noise) / divisor in `grad`, rounded to the parameter's type after the division."""
        if self._randomness is None:
            raise ExactnessError("Expected noisy_step(randomness) to end a batch, got a bare step.")
        drawn = self._randomness.discrete_gaussian(self._count(), self.noise_scale)
        device = self.params[0].device
        noise = torch.from_numpy(drawn).to(device).double()
        total = noise if self.summed is None else self.summed + noise
        mean = total * (GRID * float(self.max_grad_norm) / self.divisor)
        for parameter, part in zip(self.params, split_like(self.params, mean), strict=True):
            parameter.grad = part.to(parameter.dtype)

    def step(self, closure: Any = None) -> None:
        """Refuse: a bare step would use whatever gradient lies around."""
        del closure
        raise ExactnessError("Expected noisy_step(randomness) to end a batch, got a bare step.")


def clip_factors(
    groups: list[Tensor], *, clip_norms: list[float], clipping: Literal["automatic", "flat"]
) -> list[Tensor]:
    """One factor per group and record such that factor x |the record's row| <= the group's norm; 0 for a record that is
    not finite in any group.

    Guarantee: a record whose gradient is NaN or infinite contributes nothing and reveals nothing.

    Args:
        groups: gradients (records, numbers) that are clipped by themselves.
        clip_norms: of every group.
        clipping: as in `PrivateOptimizer`.
    """
    # on a GPU a reduction's bits depend on how many rows there are
    norms = [torch.stack([row.norm() for row in rows]) if rows.is_cuda else rows.norm(dim=1) for rows in groups]
    finite = torch.isfinite(torch.stack(norms)).all(dim=0)
    by_group = []
    for norm, clip_norm in zip(norms, clip_norms, strict=True):
        if clipping == "automatic":
            factors = clip_norm / (norm + AUTOMATIC_STABILITY * clip_norm)
        else:
            factors = (clip_norm / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
        by_group.append(torch.where(finite, factors, torch.zeros_like(factors)))
    return by_group


def on_grid(rows: Tensor, factors: Tensor) -> Tensor:
    """Scale rows (records, numbers) by one factor each and round them to whole numbers, in place; NaN becomes 0."""
    return rows.nan_to_num_(0.0, 0.0, 0.0).mul_(factors.unsqueeze(1)).round_()


def _fits(rows: Tensor, longest: float) -> Tensor:
    """Return which rows of whole numbers (records, numbers) are no longer than `longest` and what rounding may add.

    Exact where it matters: sums of squares below 2^53 are exact in float64, and the limit is near 2^48.
    """
    squared = torch.bmm(rows.unsqueeze(1), rows.unsqueeze(2)).flatten()
    return squared <= (longest + math.sqrt(rows.shape[1]) / 2) ** 2


def split_like(parameters: list[nn.Parameter], flat: Tensor) -> list[Tensor]:
    """Cut one flat vector into tensors shaped like the parameters, in their order."""
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    return [part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]
