"""Clipping, summing and noise, without a model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from client.vault.training.optimizer import PrivateOptimizer, clip_factors, split_like
from client.vault.training.randomness import OsRandomness
from shared.errors import ExactnessError
from shared.privacy.grid import GRID, MOST_NUMBERS, sensitivity


class Noise:
    """A step whose noise is given, as a share of its scale."""

    def __init__(self, value: float = 0.0) -> None:
        self.value, self.draws = value, 0

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        raise AssertionError((count, sampling_rate))

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        self.draws += 1
        return np.full(count, round(self.value * scale))


def optimizer(parameter: nn.Parameter, *, sigma: float = 1.0, clip: float = 1.0, flat: bool = True) -> PrivateOptimizer:
    return PrivateOptimizer(
        [{"params": [parameter], "lr": 1.0}],
        noise_multiplier=sigma,
        clip_norm=clip,
        divisor=4.0,
        clipping="flat" if flat else "automatic",
    )


def test_another_descent_sees_the_noisy_mean_alone() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    groups = [{"params": [parameter], "lr": 0.1}]
    opt = PrivateOptimizer(
        groups, noise_multiplier=1.0, clip_norm=1.0, divisor=4.0, clipping="flat", descent=torch.optim.Adam
    )
    accumulate(opt, torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    opt.noisy_step(Noise(0.2))
    noisy_mean = (torch.tensor([0.6, 0.8]) + 0.2) / 4
    torch.testing.assert_close(parameter.data, -0.1 * noisy_mean / (noisy_mean.abs() + 1e-8))


def accumulate(opt: PrivateOptimizer, gradients: torch.Tensor) -> None:
    opt.params[0].grad_sample = gradients
    opt.accumulate(len(gradients))


@pytest.mark.guarantee(
    "adding or removing one record moves the sum that the noise is added to by at most `sensitivity(clip_norm)`, "
    "exactly, whatever the order of addition."
)
@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(1e-8, 1e8), st.floats(1e-3, 10), st.booleans())
def test_one_record_moves_the_sum_by_at_most_clip_norm(seed: int, scale: float, clip: float, flat: bool) -> None:
    gradients = scale * torch.from_numpy(np.random.default_rng(seed).standard_normal((5, 7))).float()
    with_it, without = (optimizer(nn.Parameter(torch.zeros(7)), clip=clip, flat=flat) for _ in range(2))
    accumulate(with_it, gradients)
    accumulate(without, gradients[1:])
    moved = with_it.summed - without.summed
    assert torch.equal(moved, moved.round()), "whole numbers of the grid"
    assert sum(int(step) ** 2 for step in moved.tolist()) <= (sensitivity(1.0) / GRID) ** 2
    backwards = optimizer(nn.Parameter(torch.zeros(7)), clip=clip, flat=flat)
    for row in reversed(range(5)):
        accumulate(backwards, gradients[row : row + 1])
    assert torch.equal(backwards.summed, with_it.summed)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(1e-8, 1e8), st.floats(1e-3, 10), st.floats(0.05, 0.95), st.booleans())
def test_parts_that_are_clipped_by_themselves_are_bounded_together(
    seed: int, scale: float, clip: float, share: float, flat: bool
) -> None:
    generator = np.random.default_rng(seed)
    parts = [nn.Parameter(torch.zeros(7)), nn.Parameter(torch.zeros(3, 2))]
    opt = PrivateOptimizer(
        [{"params": [p], "lr": 1.0, "share": s} for p, s in zip(parts, (share, 1 - share), strict=True)],
        noise_multiplier=1.0,
        clip_norm=clip,
        divisor=4.0,
        clipping="flat" if flat else "automatic",
    )
    for part, size in zip(parts, (scale, 1e3 * scale), strict=True):
        part.grad_sample = size * torch.from_numpy(generator.standard_normal((1, *part.shape))).float()  # type: ignore[attr-defined]
    opt.accumulate(1)
    norms = [GRID * clip * float(part.norm()) for part in split_like(parts, opt.summed)]
    assert norms[0] <= sensitivity(clip) * share**0.5 and norms[1] <= sensitivity(clip) * (1 - share) ** 0.5
    assert np.hypot(*norms) <= sensitivity(clip), "what the accountant is told of one record"


def test_a_short_part_keeps_its_share_beside_a_long_one() -> None:
    head, adapter = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": [head], "lr": 1.0, "share": 0.64}, {"params": [adapter], "lr": 1.0, "share": 0.36}]
    opt = PrivateOptimizer(groups, noise_multiplier=1.0, clip_norm=1.0, divisor=1.0, clipping="flat")
    head.grad_sample, adapter.grad_sample = torch.tensor([[1.0]]), torch.tensor([[100.0]])  # type: ignore[attr-defined]
    opt.accumulate(1)
    assert (GRID * opt.summed).tolist() == pytest.approx([0.8, 0.6])


def test_a_record_that_is_not_finite_in_one_part_contributes_to_none() -> None:
    head, adapter = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": [head], "lr": 1.0, "share": 0.5}, {"params": [adapter], "lr": 1.0, "share": 0.5}]
    opt = PrivateOptimizer(groups, noise_multiplier=1.0, clip_norm=1.0, divisor=1.0, clipping="automatic")
    head.grad_sample, adapter.grad_sample = torch.tensor([[1.0]]), torch.tensor([[float("nan")]])  # type: ignore[attr-defined]
    opt.accumulate(1)
    assert opt.summed.tolist() == [0.0, 0.0]


def test_shares_that_do_not_add_up_are_refused() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, "share": 0.7} for _ in range(2)]
    opt = PrivateOptimizer(groups, noise_multiplier=1.0, clip_norm=1.0, divisor=1.0, clipping="flat")
    for parameter in opt.params:
        parameter.grad_sample = torch.ones(1, 1)
    with pytest.raises(ExactnessError, match="add up to 1"):
        opt.accumulate(1)


@pytest.mark.guarantee("a record whose gradient is NaN or infinite contributes nothing and reveals nothing.")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("flat", [True, False])
def test_record_without_a_finite_gradient_counts_as_zero(bad: float, flat: bool) -> None:
    good = torch.tensor([[0.3, 0.4], [0.1, 0.0]])
    spoiled = torch.cat([good, torch.tensor([[bad, 1.0]])])
    mixed, clean = (optimizer(nn.Parameter(torch.zeros(2)), flat=flat) for _ in range(2))
    accumulate(mixed, spoiled)
    accumulate(clean, good)
    moved = (mixed.summed - clean.summed).norm()
    assert moved <= 1 / GRID  # a huge finite gradient is clipped, anything else adds exactly nothing
    assert np.isfinite(bad) or moved == 0


@pytest.mark.guarantee(
    "every step adds exactly one draw of discrete Gaussian noise with standard deviation noise_multiplier x "
    "`sensitivity(clip_norm)`."
)
def test_noise_has_the_stated_scale_and_a_wrong_one_would_be_seen() -> None:
    parameter, sigma, clip = nn.Parameter(torch.zeros(20_000)), 1.7, 0.3
    optimizer(parameter, sigma=sigma, clip=clip).noisy_step(OsRandomness().step())
    draws = -4.0 * parameter.detach().double().numpy()  # learning rate 1, divisor 4
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(draws))  # false alarm 1e-6
    for factor, expected in ((1.0, True), (2 / 3, False), (3 / 2, False), (0.0, False)):
        assert bool(low <= np.sum((factor * draws / (sigma * sensitivity(clip))) ** 2) <= high) is expected


def test_what_was_summed_is_forgotten_with_the_gradients() -> None:
    parameter, noise = nn.Parameter(torch.zeros(2)), Noise(1.0)
    opt = optimizer(parameter, sigma=2.0)
    accumulate(opt, torch.tensor([[0.3, 0.4]]))
    opt.zero_grad()
    opt.noisy_step(noise)
    torch.testing.assert_close(
        parameter.data, torch.tensor([-0.5, -0.5]), rtol=1e-3, atol=0
    )  # noise 2 x 1 over the divisor 4, no more
    assert opt.summed is None and parameter.grad is None


def test_any_number_of_physical_parts_gets_one_draw() -> None:
    opt, noise = optimizer(nn.Parameter(torch.zeros(2)), sigma=2.0), Noise(1.0)
    for _ in range(3):
        accumulate(opt, torch.tensor([[0.3, 0.4]]))
    opt.noisy_step(noise)
    assert noise.draws == 1
    np.testing.assert_allclose(opt.params[0].detach(), [-(0.9 + 2) / 4, -(1.2 + 2) / 4], rtol=1e-3)


def test_empty_batch_is_a_step_of_pure_noise() -> None:
    opt = optimizer(nn.Parameter(torch.zeros(3)), sigma=2.0)
    opt.noisy_step(Noise(1.0))
    np.testing.assert_allclose(opt.params[0].detach(), -0.5, rtol=1e-3)


def test_automatic_clipping_matches_its_formula() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.0, 0.01]], dtype=torch.float64)
    (factors,) = clip_factors([gradients], clip_norms=[2.0], clipping="automatic")
    np.testing.assert_allclose(factors, [2 / (5 + 0.02), 2 / (0.01 + 0.02)], rtol=1e-12)


def test_missing_or_misshapen_gradients_are_refused() -> None:
    opt = optimizer(nn.Parameter(torch.zeros(2)))
    for gradients in (None, torch.zeros(6, 2), torch.zeros(3, 4)):
        opt.params[0].grad_sample = gradients
        with pytest.raises(ExactnessError, match="one gradient per record"):
            opt.accumulate(3)


@pytest.mark.guarantee("a record whose rounded gradient is longer than clipping allows counts as zero.")
def test_a_record_that_clipping_failed_to_shorten_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([[0.6, 0.8], [0.0, 0.5]])
    monkeypatch.setattr("client.vault.training.optimizer.clip_factors", lambda groups, **_: [torch.full((2,), 1.001)])
    opt = optimizer(nn.Parameter(torch.zeros(2)))
    accumulate(opt, rows)
    assert (GRID * opt.summed).tolist() == pytest.approx([0.0, 0.5005])


def test_more_numbers_than_the_grid_is_made_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.vault.training.optimizer.MOST_NUMBERS", 2)
    with pytest.raises(ExactnessError, match="at most 2 numbers"):
        optimizer(nn.Parameter(torch.zeros(3))).noisy_step(Noise())
    assert MOST_NUMBERS == 2**26


def test_bare_step_is_refused() -> None:
    opt = optimizer(nn.Parameter(torch.zeros(2)))
    for step in (opt.step, opt.add_noise):
        with pytest.raises(ExactnessError, match="noisy_step"):
            step()
