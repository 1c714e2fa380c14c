"""Share a secret of 32 bytes so that any t shares give it back and fewer say nothing (Shamir 1979).

Shares are values of a random polynomial over the integers modulo p = 2^521 - 1, at each holder's place in the roster.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence

from shared.secure_sum.refusals import Refusal, SecureSumError

PRIME = 2**521 - 1
SHARE_BYTES = 66
SECRET_BYTES = 32
Weights = Mapping[int, int]


def split(
    secret: bytes, threshold: int, holders: int, *, below: Callable[[int], int] = secrets.randbelow
) -> tuple[bytes, ...]:
    """Return one share for each holder, in the order of their places 1, 2, ...

    Guarantee: fewer than `threshold` shares are distributed the same whatever the secret is.

    Args:
        secret: 32 bytes.
        threshold: how many shares give the secret back.
        holders: how many shares to make.
        below: gives a uniform number below its argument; only tests pass another one.
    """
    coefficients = [int.from_bytes(secret, "big"), *(below(PRIME) for _ in range(threshold - 1))]
    return tuple(_value(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in range(1, holders + 1))


def weights(places: Sequence[int]) -> Weights:
    """Return the factors by which the shares at some places give the secret (Lagrange, at zero)."""
    factors = {}
    for place in places:
        above, below = 1, 1
        for other in places:
            if other != place:
                above, below = above * other % PRIME, below * (other - place) % PRIME
        factors[place] = above * pow(below, -1, PRIME) % PRIME
    return factors


def combine(shares: Mapping[int, bytes], factors: Weights) -> bytes:
    """Return the secret that shares by place give.

    Raises:
        SecureSumError: they are no shares of a secret of 32 bytes.
    """
    total = sum(factor * int.from_bytes(shares[place], "big") for place, factor in factors.items()) % PRIME
    if total.bit_length() > 8 * SECRET_BYTES:
        raise SecureSumError(Refusal.COMMITMENT)
    return total.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: Sequence[int], place: int) -> int:
    total = 0
    for coefficient in reversed(coefficients):
        total = (total * place + coefficient) % PRIME
    return total
