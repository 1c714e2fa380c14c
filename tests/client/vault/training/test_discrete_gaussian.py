"""The discrete Gaussian against its exact law, computed independently; a wrong law would be seen."""

import math
import os
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from client.vault.training.discrete_gaussian import _BELOW, AT_ONCE, _happens, discrete_gaussian

FALSE_ALARM = 1e-6
DRAWS = 200_000


def fresh(words: int) -> NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * words), "<u8")


def p_value(drawn: NDArray[np.int64], scale: float) -> float:
    """Chi-square of the counts against exp(-x² / 2 s²), with rare numbers taken together."""
    numbers = np.arange(-math.ceil(12 * scale) - 2, math.ceil(12 * scale) + 3)
    chances = np.exp(-(numbers**2) / (2 * scale**2))
    expected = len(drawn) * chances / chances.sum()
    often = expected > 10
    counts = np.array([(drawn == number).sum() for number in numbers[often]])
    rest = len(drawn) - counts.sum()
    return float(stats.chisquare([*counts, rest], [*expected[often], expected[~often].sum()]).pvalue)


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.7, 13.6])
def test_counts_follow_the_law_and_those_of_another_scale_do_not(scale: float) -> None:
    drawn = discrete_gaussian(fresh, DRAWS, scale)
    assert p_value(drawn, scale) > FALSE_ALARM
    assert p_value(drawn, 1.05 * scale) < FALSE_ALARM
    assert p_value(np.rint(scale * np.random.default_rng(0).standard_normal(DRAWS)).astype(int), scale) < (
        FALSE_ALARM if scale == 0.6 else 1.0
    ), "a rounded normal is another law, as small scales show"


@pytest.mark.guarantee("every number has its probability to a relative error of 2^-40, far out in the tails as well.")
@given(st.floats(0.5, 2.0**40), st.integers(0, 2**62), st.floats(0, 25))
def test_every_probability_is_right_to_a_relative_error(scale: float, bits: int, deviations: float) -> None:
    """The chance of a proposal times that of its being kept, from the whole numbers that words are compared with."""
    size = min(round(deviations * scale), 2**52)
    chances = [chance_of(size, scale), chance_of(bits % max(1, round(scale)), scale)]
    with mpmath.workprec(300):
        assert all(abs(chance / chances[0] - 1) < 2.0**-40 for chance in chances)


def chance_of(size: int, scale: float) -> mpmath.mpf:
    """How likely `size` is, over the exact exp(-size² / 2 scale²): the same for every size if all is right."""
    step = 2 ** max(0, round(math.log2(scale)))
    place, rest = size % step, size // step
    exponent = np.float64(place) / step + (np.float64(size) - scale**2 / step) ** 2 / (2 * scale**2)
    with mpmath.workprec(300):
        below = [mpmath.mpf(int(bound)) / 2**64 for bound in _BELOW[::-1]]
        whole, left = divmod(rest, len(below))
        geometric = below[-1] ** whole * ([mpmath.mpf(1), *below][left] - below[left])
        kept = mpmath.mpf(1)
        while True:
            uniforms = mpmath.ceil(mpmath.mpf(float(np.exp(-np.minimum(exponent, AT_ONCE)))) * 2**53)
            kept *= uniforms / 2**53
            if exponent <= AT_ONCE:
                break
            exponent -= AT_ONCE
        exact = mpmath.exp(-(mpmath.mpf(size) ** 2) / (2 * mpmath.mpf(scale) ** 2))
        return geometric * kept / exact


def test_signs_and_order_are_independent_of_size() -> None:
    drawn = discrete_gaussian(fresh, DRAWS, 1000.0)
    assert stats.binomtest(int((drawn > 0).sum()), int((drawn != 0).sum())).pvalue > FALSE_ALARM
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 6 / math.sqrt(DRAWS)


def test_a_longer_request_begins_with_no_shorter_one() -> None:
    assert len(discrete_gaussian(fresh, 1, 2.0)) == 1 and len(discrete_gaussian(fresh, 0, 2.0)) == 0


def test_the_extreme_words_decide_both_ways() -> None:
    def always(word: int) -> Callable[[int], NDArray[np.uint64]]:
        return lambda count: np.full(count, word, np.uint64)

    exponents = np.array([0.0, 3.0, 4.0, 1000.0])
    assert _happens(always(0), exponents).all()
    assert _happens(always(2**64 - 1), exponents).tolist() == [True, False, False, False], "certainty always happens"
