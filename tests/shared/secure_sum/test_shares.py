"""Shamir's sharing against its definition."""

import secrets
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from shared.secure_sum.refusals import Refusal
from shared.secure_sum.shares import PRIME, SHARE_BYTES, combine, split, weights
from tests.support.secure_sums import refused


@settings(max_examples=30)
@given(some.binary(min_size=32, max_size=32), some.integers(1, 6), some.integers(0, 3))
def test_any_t_shares_give_the_secret(secret: bytes, threshold: int, more: int) -> None:
    shares = split(secret, threshold, threshold + more)
    assert all(len(share) == SHARE_BYTES for share in shares)
    for places in combinations(range(1, threshold + more + 1), threshold):
        assert combine({place: shares[place - 1] for place in places}, weights(places)) == secret


def test_the_weights_are_lagranges() -> None:
    for place, weight in weights((1, 3, 4, 7)).items():
        exact = Fraction(1)
        for other in {1, 3, 4, 7} - {place}:
            exact *= Fraction(other, other - place)
        assert weight * exact.denominator % PRIME == exact.numerator % PRIME


@pytest.mark.guarantee("fewer than `threshold` shares are distributed the same whatever the secret is.")
def test_for_any_other_secret_there_is_one_polynomial_with_the_same_t_minus_1_shares() -> None:
    first, second = secrets.token_bytes(32), secrets.token_bytes(32)
    linear, square = secrets.randbelow(PRIME), secrets.randbelow(PRIME)
    seen = split(first, 3, 5, below=_from(linear, square))[:2]
    # difference * (x - 1) (x - 2) / 2 is zero at both places seen, and `difference` at 0
    difference, half = int.from_bytes(second, "big") - int.from_bytes(first, "big"), pow(2, -1, PRIME)
    other = (linear - 3 * half * difference) % PRIME, (square + half * difference) % PRIME
    assert split(second, 3, 5, below=_from(*other))[:2] == seen


def _from(*coefficients: int) -> Callable[[int], int]:
    remaining = iter(coefficients)
    return lambda most: next(remaining)


def test_coefficients_come_from_the_system_and_are_never_the_same() -> None:
    assert split(bytes(32), 2, 2) != split(bytes(32), 2, 2)


def test_shares_of_no_secret_of_32_bytes_are_refused() -> None:
    shares = split((2**256 - 1).to_bytes(32, "big"), 2, 2)
    refused(Refusal.COMMITMENT, lambda: combine({1: shares[0], 2: bytes(SHARE_BYTES)}, weights((1, 2))))


def test_fixed_vector() -> None:
    shares = split((3).to_bytes(32, "big"), 3, 3, below=_from(5, 7))
    assert [int.from_bytes(share, "big") for share in shares] == [15, 41, 81]
