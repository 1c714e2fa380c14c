"""The accountant's continuous Gaussian beside sums over a grid, computed independently, in both directions."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp

from shared.privacy.grid import GRID, MOST_NUMBERS, NOISE_STEPS, ROUNDING, sensitivity


def moment(scale: float, shift: int, rate: float, order: float, *, added: bool) -> mpmath.mpf:
    """E[(P / Q)^order] over whole numbers: one record's sampled shift against none, or none against it."""
    with mpmath.workprec(200):
        numbers = range(-math.ceil(40 * scale) - 40 * shift, math.ceil(40 * scale) + 40 * shift + 1)
        density = [mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(scale) ** 2)) for x in numbers]
        shifted = [mpmath.exp(-(mpmath.mpf(x - shift) ** 2) / (2 * mpmath.mpf(scale) ** 2)) for x in numbers]
        mixed = [(1 - rate) * q + rate * p for q, p in zip(density, shifted, strict=True)]
        over, under = (mixed, density) if added else (density, mixed)
        return sum((p**order * q ** (1 - order) for p, q in zip(over, under, strict=True)), mpmath.mpf(0)) / sum(
            density
        )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1), (1.4, 2), (3.0, 2)])
@pytest.mark.parametrize("rate", [0.1, 1.0])
@pytest.mark.parametrize("order", [2.0, 3.0, 7.0])
def test_at_integer_orders_the_grid_costs_what_the_accountant_says(
    scale: float, shift: int, rate: float, order: float
) -> None:
    stated = rdp.compute_rdp(q=rate, noise_multiplier=scale / shift, steps=1, orders=[order])[0]
    costs = [float(mpmath.log(moment(scale, shift, rate, order, added=added)) / (order - 1)) for added in (True, False)]
    assert costs[0] == pytest.approx(stated, rel=1e-9)
    assert costs[1] <= stated * (1 + 1e-9), "removing costs no more than adding"


@pytest.mark.parametrize("order", [1.3, 2.5, 5.7])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1), (2.0, 1), (3.0, 2)])
def test_between_integer_orders_the_difference_vanishes_as_the_grid_becomes_fine(
    scale: float, shift: int, order: float
) -> None:
    rate = 0.1
    stated = rdp.compute_rdp(q=rate, noise_multiplier=scale / shift, steps=1, orders=[order])[0]
    cost = float(mpmath.log(moment(scale, shift, rate, order, added=True)) / (order - 1))
    bound = 2 * math.exp(-2 * math.pi**2 * scale * min(scale, scale / (2 * shift)))
    assert abs(cost - stated) <= bound / (order - 1) + 1e-9
    fine = 0.3 * NOISE_STEPS
    assert 2 * MOST_NUMBERS * math.exp(-min(700.0, 2 * math.pi**2 * fine * 0.15)) < 1e-290, "nothing, at real scales"


@given(st.integers(0, 10_000), st.integers(1, 3000), st.floats(0.1, 10))
def test_rounding_adds_no_more_than_is_accounted_for(seed: int, numbers: int, clip: float) -> None:
    gradient = np.random.default_rng(seed).standard_normal(numbers)
    gradient *= clip / np.linalg.norm(gradient)
    rounded = np.rint(gradient / (GRID * clip))
    assert np.linalg.norm(rounded) * GRID * clip <= clip + GRID * clip * math.sqrt(numbers) / 2 <= sensitivity(clip)
    assert GRID * math.sqrt(MOST_NUMBERS) / 2 == ROUNDING
    assert 1.5 * NOISE_STEPS * GRID * clip == pytest.approx(1.5 * sensitivity(clip), rel=1e-12)
