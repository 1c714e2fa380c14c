"""Pack an update as float32, as bfloat16, or as one signed byte per value on a public grid.

| wire | bytes for n values | what a value can be |
|---|---|---|
| `float32` | 4 n | any float32 |
| `bfloat16` | 2 n | the upper half of a float32: 8 significant bits |
| `int8` | n + 40 | one of the 255 values of the head's grid or the adapter's; the grids come first |
| `int64` | 8 n | a whole number: a summand of a secure sum, never an update by itself |

Packing loses nothing: the vault has rounded the update to values of the encoding before.
"""

import math
import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from shared.errors import EncodingError
from shared.search import halved

DeclaredWire = Literal["float32", "bfloat16", "int8"]
"""Those that a study may choose."""
Wire = Literal["float32", "bfloat16", "int8", "int64"]
WIRES: tuple[DeclaredWire, ...] = get_args(DeclaredWire)
SENT: tuple[Wire, ...] = get_args(Wire)
"""Those in which something is sent: what a study may choose, and the summands of secure sums."""
LEVELS = 127
EVEN = 1e-6
"""A bend so small that the spacing is the same everywhere."""
SHARPEST_BEND = 0.25
GROUPS = 2
HEADER = struct.Struct("<Idd")
VALUE_BYTES: dict[Wire, int] = {"float32": 4, "bfloat16": 2, "int8": 1, "int64": 8}
ROUNDING_ROOM: dict[DeclaredWire, float] = {"float32": 1.0, "bfloat16": 1 + 2.0**-7, "int8": 1.5}
"""Factor by which rounding may lengthen an honest update. With int8 a value moves by less than the first step,
an eighth of the noise's deviation, plus exp(`SHARPEST_BEND`) - 1 = 0.28 of itself."""
Vector = NDArray[np.float32]
"""Of an update; the summands of secure sums are int64, and are cast where they travel as one."""
Value = TypeVar("Value", np.float32, np.int8)


class Grid(NamedTuple):
    """255 public values around 0: spaced nearly evenly where most noise lies, and in proportion farther out.

    value(k) = width x sinh(bend x k), k from -127 to 127. Steps are small where most values are, and a rare large value
    is still on the grid.
    """

    length: int
    """How many values of the packed vector use this grid; those of the next grid follow."""
    width: float = 1.0
    bend: float = EVEN

    @classmethod
    def fitted(cls, length: int, *, largest: float, finest: float) -> Self:
        """Make a grid from -largest to largest whose first step is `finest`, or shorter if even steps are."""
        wanted = largest / finest
        bend, _ = halved(
            lambda bend: not math.sinh(LEVELS * bend) / math.sinh(bend) < wanted,
            EVEN,
            SHARPEST_BEND,
            near=lambda low, high: high - low <= 1e-12,
        )
        return cls(length, largest / math.sinh(LEVELS * bend), bend)

    def values(self) -> Vector:
        """Return the grid's values, ascending (255,).

        Raises:
            EncodingError: they are not finite, or do not ascend.
        """
        with np.errstate(all="ignore"):
            exact = self.width * np.sinh(self.bend * np.arange(-LEVELS, LEVELS + 1))
            values: Vector = exact.astype(np.float32)
        if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
            raise EncodingError(
                f"Expected a grid of finite values that ascend, got width={self.width} and bend={self.bend}."
            )
        return values


@dataclass(frozen=True)
class Encoding:
    """Public encoding of one update's values, with the grids that they are on."""

    wire: Wire = "float32"
    grids: tuple[Grid, ...] = ()
    """Grids of the adapter and of the head for int8; otherwise empty."""

    @classmethod
    def of_zeros(cls, wire: Wire, length: int) -> Self:
        """Return the encoding of zeros, by which a reply without an update is as long as one with."""
        return cls(wire, (Grid(length), Grid(0)) if wire == "int8" else ())


FLOAT32 = Encoding()


def packed_bytes(length: int, wire: Wire) -> int:
    """Return the size of a packed update of `length` values, in bytes."""
    return VALUE_BYTES[wire] * length + (GROUPS * HEADER.size if wire == "int8" else 0)


def pack(update: Vector, encoding: Encoding = FLOAT32) -> bytes:
    """Pack an update whose values are values of the encoding."""
    if encoding.wire == "int64":
        return np.ascontiguousarray(update, dtype="<i8").tobytes()
    values = np.ascontiguousarray(update, dtype="<f4")
    if encoding.wire == "float32":
        return values.tobytes()
    if encoding.wire == "bfloat16":
        return (values.view("<u4") >> np.uint32(16)).astype("<u2").tobytes()
    headers = b"".join(HEADER.pack(*grid) for grid in encoding.grids)
    return headers + b"".join(_codes(part, grid).tobytes() for part, grid in parts(values, encoding.grids))


def unpack(packed: bytes, wire: Wire) -> tuple[Vector, Encoding]:
    """Unpack an update; its sender may have sent anything. Float32 values are not copied and are read-only.

    Raises:
        EncodingError: the bytes are no packed update.
    """
    if not packed:
        return np.zeros(0, np.float32), Encoding(wire)
    if wire == "int8":
        return _unpack_bytes(packed)
    if len(packed) % VALUE_BYTES[wire]:
        raise EncodingError(f"Expected {wire} values, got {len(packed)} bytes.")
    if wire == "int64":
        return cast(Vector, np.frombuffer(packed, "<i8").astype(np.int64, copy=False)), Encoding(wire)
    if wire == "float32":
        return np.frombuffer(packed, "<f4").astype(np.float32, copy=False), FLOAT32
    return (np.frombuffer(packed, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32), Encoding(wire)


def parts(vector: NDArray[Value], grids: tuple[Grid, ...]) -> list[tuple[NDArray[Value], Grid]]:
    """Cut a vector into the parts of its grids.

    Raises:
        EncodingError: the grids are for another number of values.
    """
    if sum(grid.length for grid in grids) != len(vector):
        raise EncodingError(f"Expected grids for {len(vector)} values, got {[grid.length for grid in grids]}.")
    ends = np.cumsum([grid.length for grid in grids])[:-1]
    return list(zip(np.split(vector, ends), grids, strict=True))


def _codes(part: Vector, grid: Grid) -> NDArray[np.int8]:
    """Return the number of the nearest grid value: two machines may compute a grid with different last bits."""
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
    decoded = [grid.values()[part.astype(np.int64) + LEVELS] for part, grid in parts(codes, grids)]
    return np.concatenate(decoded), Encoding("int8", grids)
