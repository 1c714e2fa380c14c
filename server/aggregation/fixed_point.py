"""A sum of vectors in 64-bit fixed point: exact, so independent of order, and of constant size.

Floating-point sums depend on the order in which replies arrive; integers do not. The resolution of 2^-32 lies below
float32's own for any value above 2^-8, and far below any noise.
"""

import numpy as np
from numpy.typing import NDArray

from shared.errors import PeerError
from shared.protocol.fixed_point import FRACTION_BITS, mean_of

LARGEST_SUM = 2.0 ** (62 - FRACTION_BITS)
BLOCK = 2**15  # floats that are converted at once: they stay in the processor's cache


class FixedPointSum:
    """Adds float32 vectors of one length.

    Guarantee: the same vectors give the same bytes in any order, and memory does not grow with their number.
    """

    def __init__(self, length: int) -> None:
        self._total = np.zeros(length, dtype=np.int64)
        self._scaled, self._rounded = np.empty(min(length, BLOCK), np.float32), np.empty(min(length, BLOCK), np.int64)
        self._largest = 0.0
        self.count = 0

    def add(self, vector: NDArray[np.float32]) -> None:
        """Add one vector.

        Raises:
            PeerError: wrong shape, not finite, or so large that the sum could overflow. The sum stays as it was.
        """
        if vector.shape != self._total.shape:
            raise PeerError(f"Expected {self._total.shape[0]} floats, got {vector.shape}.")
        largest = max(float(vector.max(initial=0.0)), -float(vector.min(initial=0.0)))
        if not self._largest + largest < LARGEST_SUM:
            raise PeerError(f"Expected finite values with a sum below {LARGEST_SUM:g}, got up to {largest:g}.")
        for start in range(0, len(vector), BLOCK):
            part = vector[start : start + BLOCK]
            # exact in float32 too: a power of two moves the exponent alone, and the bound above is far from its end
            exact = np.multiply(part, np.float32(2**FRACTION_BITS), out=self._scaled[: len(part)])
            self._rounded[: len(part)] = np.rint(exact, out=exact)
            self._total[start : start + BLOCK] += self._rounded[: len(part)]
        self._largest += largest
        self.count += 1

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of the vectors added so far."""
        return mean_of(self._total, self.count)
