"""How an update travels: as float32, as bfloat16, or as one signed byte per value on a public grid.

| wire | bytes for n values | what a value can be |
|---|---|---|
| `float32` | 4 n | any float32 |
| `bfloat16` | 2 n | the upper half of a float32: 8 significant bits |
| `int8` | n + 40 | one of 255, of the head's grid or of the adapter's; the grids come first |

Packing loses nothing. What has to be rounded was rounded before, in the vault, to values that the encoding has.
"""

import math
import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from shared.errors import EncodingError
from shared.search import halved

Wire = Literal["float32", "bfloat16", "int8"]
WIRES: tuple[Wire, ...] = get_args(Wire)
LEVELS = 127
EVEN = 1e-6
"""So small a bend that the spacing is the same everywhere."""
SHARPEST_BEND = 0.25
GROUPS = 2
HEADER = struct.Struct("<Idd")
VALUE_BYTES: dict[Wire, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
ROUNDING_ROOM: dict[Wire, float] = {"float32": 1.0, "bfloat16": 1 + 2.0**-7, "int8": 1.5}
"""What rounding may multiply the norm of an honest update by. With int8 a value moves by less than the first step,
an eighth of the noise's deviation, plus exp(`SHARPEST_BEND`) - 1 = 0.28 of itself."""
Vector = NDArray[np.float32]
Value = TypeVar("Value", np.float32, np.int8)


class Grid(NamedTuple):
    """255 values around 0: nearly even where noise lies, in proportion far from it.

    value(k) = width x sinh(bend x k), k from -127 to 127. One step rounds by little where most values are, and the
    rare large one is still on the grid.
    """

    length: int
    """Values of the packed vector that are on it; the next grid's come after them."""
    width: float = 1.0
    bend: float = EVEN

    @classmethod
    def fitted(cls, length: int, *, largest: float, finest: float) -> Self:
        """From -largest to largest; the first step is `finest`, or less where even steps would be."""
        wanted = largest / finest
        bend, _ = halved(
            lambda bend: not math.sinh(LEVELS * bend) / math.sinh(bend) < wanted,
            EVEN,
            SHARPEST_BEND,
            near=lambda low, high: high - low <= 1e-12,
        )
        return cls(length, largest / math.sinh(LEVELS * bend), bend)

    def values(self) -> Vector:
        """Ascending (255,).

        Raises:
            EncodingError: they are not finite, or do not ascend.
        """
        with np.errstate(all="ignore"):
            exact = self.width * np.sinh(self.bend * np.arange(-LEVELS, LEVELS + 1))
            found: Vector = exact.astype(np.float32)
        if not (np.isfinite(found).all() and (np.diff(found) > 0).all()):
            raise EncodingError(
                f"Expected a grid of finite values that ascend, got width={self.width} and bend={self.bend}."
            )
        return found


@dataclass(frozen=True)
class Encoding:
    """What the values of one update are, and the grids that they are on; public."""

    wire: Wire = "float32"
    grids: tuple[Grid, ...] = ()
    """Of the adapter and of the head, with int8; empty otherwise."""

    @classmethod
    def of_zeros(cls, wire: Wire, length: int) -> Self:
        """For a reply without an update: as long as one with."""
        return cls(wire, (Grid(length), Grid(0)) if wire == "int8" else ())


FLOAT32 = Encoding()


def packed_bytes(length: int, wire: Wire) -> int:
    """Bytes of an update of `length` values, whatever they are."""
    return VALUE_BYTES[wire] * length + (GROUPS * HEADER.size if wire == "int8" else 0)


def pack(update: Vector, encoding: Encoding = FLOAT32) -> bytes:
    """An update's bytes; its values are the encoding's already."""
    whole = np.ascontiguousarray(update, dtype="<f4")
    if encoding.wire == "float32":
        return whole.tobytes()
    if encoding.wire == "bfloat16":
        return (whole.view("<u4") >> np.uint32(16)).astype("<u2").tobytes()
    headers = b"".join(HEADER.pack(*grid) for grid in encoding.grids)
    return headers + b"".join(_codes(part, grid).tobytes() for part, grid in parts(whole, encoding.grids))


def unpack(packed: bytes, wire: Wire) -> tuple[Vector, Encoding]:
    """Read what `pack` gave; whoever sent it may have sent anything. Values of float32 stay where they came, read-only.

    Raises:
        EncodingError: it is nothing that `pack` gives.
    """
    if not packed:
        return np.zeros(0, np.float32), Encoding(wire)
    if wire == "int8":
        return _unpack_bytes(packed)
    if len(packed) % VALUE_BYTES[wire]:
        raise EncodingError(f"Expected {wire} values, got {len(packed)} bytes.")
    if wire == "float32":
        return np.frombuffer(packed, "<f4").astype(np.float32, copy=False), FLOAT32
    return (np.frombuffer(packed, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32), Encoding(wire)


def parts(vector: NDArray[Value], grids: tuple[Grid, ...]) -> list[tuple[NDArray[Value], Grid]]:
    """Cut a vector where its grids end.

    Raises:
        EncodingError: they are for another number of values.
    """
    if sum(grid.length for grid in grids) != len(vector):
        raise EncodingError(f"Expected grids for {len(vector)} values, got {[grid.length for grid in grids]}.")
    ends = np.cumsum([grid.length for grid in grids])[:-1]
    return list(zip(np.split(vector, ends), grids, strict=True))


def _codes(part: Vector, grid: Grid) -> NDArray[np.int8]:
    """The nearest: two machines may compute the same grid with other last bits."""
    values = grid.values()
    middles = (values[:-1].astype(np.float64) + values[1:]) / 2
    return (np.searchsorted(middles, part) - LEVELS).astype(np.int8)


def _unpack_bytes(packed: bytes) -> tuple[Vector, Encoding]:
    head = GROUPS * HEADER.size
    if len(packed) < head:
        raise EncodingError(f"Expected {GROUPS} grids, got {len(packed)} bytes.")
    grids = tuple(Grid(*read) for read in HEADER.iter_unpack(packed[:head]))
    codes = np.frombuffer(packed[head:], np.int8)
    if (codes < -LEVELS).any():
        raise EncodingError(f"Expected codes from {-LEVELS} to {LEVELS}, got one below.")
    found = [grid.values()[part.astype(np.int64) + LEVELS] for part, grid in parts(codes, grids)]
    return np.concatenate(found), Encoding("int8", grids)
