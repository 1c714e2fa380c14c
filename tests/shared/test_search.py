"""Searches find the place where a condition turns, wherever it is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.search import doubled_until, halved, largest, smallest


@given(turn=st.integers(0, 10_000), most=st.integers(1, 10_000))
def test_the_largest_number_that_fits_is_found(turn: int, most: int) -> None:
    assert largest(lambda number: number <= turn, most=most) == min(turn, most)


@given(turn=st.integers(-50, 10_000), least=st.integers(0, 100), most=st.integers(100, 9_000))
def test_the_smallest_number_that_fits_is_found(turn: int, least: int, most: int) -> None:
    found = smallest(lambda number: number >= turn, least=least, most=most)
    assert found == (max(turn, least) if turn <= most else None)


def test_large_numbers_take_few_tries() -> None:
    tried: list[int] = []
    assert largest(lambda number: tried.append(number) or number <= 10**12, most=2**53) == 10**12
    assert len(tried) < 90


@given(turn=st.floats(1e-6, 1e6))
def test_doubling_ends_on_both_sides_of_the_turn(turn: float) -> None:
    ends = doubled_until(lambda value: value >= turn, 1.0, most=2e6)
    assert ends is not None
    low, high = ends
    assert low < turn <= high and (low == 0 or high == 2 * low)


def test_doubling_gives_up_beyond_the_most() -> None:
    assert doubled_until(lambda value: value >= 9, 1.0, most=8) is None
    assert doubled_until(lambda value: value >= 8, 1.0, most=8) == (4, 8)


@pytest.mark.parametrize("middle", [lambda low, high: (low + high) / 2, lambda low, high: math.sqrt(low * high)])
def test_halving_narrows_to_the_turn_and_keeps_it_inside(middle: object) -> None:
    low, high = halved(
        lambda value: value >= math.pi, 1.0, 64.0, near=lambda low, high: high - low <= 1e-9, middle=middle
    )
    assert low < math.pi <= high <= low + 1e-9
