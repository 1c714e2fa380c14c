"""Combines updates by their geometric median: the point whose distances to all of them add up to the least.

One update moves it little however long it is, so fewer than half of the sites cannot lead it where they like. Each part
of the model with a rate of its own has a median of its own: a long adapter would hide what is wrong with a head.

Weiszfeld's iteration, smoothed as in Pillutla et al. 2022 (arXiv:1912.13445), from the mean: where nobody stands out,
as in honest rounds, whose updates all lie about as far from each other, it stays there.
"""

import hashlib
import tempfile
import weakref
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import PeerError
from shared.protocol.messages import Vector

TURNS = 50
NEAREST = 1e-6
"""Distance below which updates count alike, in multiples of the largest: nobody's weight is infinite."""


class GeometricMedian:
    """Adds the geometric median of the updates to the current adapter.

    Guarantee: the same updates give the same bytes in any order, and memory does not grow with their number.

    Args:
        length: of every update.
        parts: where the parts of the model stand in an update; default: it is one part.
    """

    def __init__(self, length: int, parts: Sequence[Sequence[slice]] = ()) -> None:
        self._length, self._parts = length, parts or [[slice(0, length)]]
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - nameless, and gone with this object
        weakref.finalize(self, self._spool.close)
        self._digests = list[bytes]()
        self.state: Mapping[str, NDArray[np.float64]] = {}
        """Nothing: every round's median stands by itself."""

    def add(self, update: Vector) -> None:
        """Add one update; it waits on disk.

        Raises:
            PeerError: wrong shape, or not finite.
        """
        if update.shape != (self._length,) or not np.isfinite(update).all():
            raise PeerError(f"Expected {self._length} finite floats, got {update.shape}.")
        content = np.ascontiguousarray(update, np.float32).tobytes()
        self._spool.write(content)
        self._digests.append(hashlib.sha256(content).digest())

    def result(self, current: Vector) -> Vector:
        """Return the current adapter plus the median update, rounded to float32 once."""
        self._spool.flush()
        rows = np.memmap(self._spool, np.float32, "r", shape=(len(self._digests), self._length))
        order = sorted(range(len(rows)), key=self._digests.__getitem__)  # sums of floats depend on their order
        step = np.zeros(self._length)
        for places in self._parts:
            centre, start = geometric_median([rows[row] for row in order], places), 0
            for place in places:
                size = place.stop - place.start
                step[place], start = centre[start : start + size], start + size
        return (current.astype(np.float64) + step).astype(np.float32)


def geometric_median(rows: Sequence[NDArray[np.float32]], places: Sequence[slice]) -> NDArray[np.float64]:
    """Return the geometric median of some places of these rows, which are read one at a time.

    Args:
        rows: at least one.
        places: of the values that are looked at.
    """

    def part(row: NDArray[np.float32]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.concatenate([row[place] for place in places]).astype(np.float64)
        return values

    weights, nearest = np.full(len(rows), 1 / len(rows)), 0.0
    for turn in range(TURNS):
        centre: NDArray[np.float64] = weights[0] * part(rows[0])
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            centre += weight * part(row)
        distances = np.array([np.linalg.norm(part(row) - centre) for row in rows])
        nearest = nearest if turn else NEAREST * float(distances.max())
        if not distances.max() > nearest:
            break  # they are all alike
        weights = 1 / np.maximum(distances, nearest)
        weights /= weights.sum()
    return centre
