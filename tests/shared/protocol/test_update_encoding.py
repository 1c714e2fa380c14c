"""The three encodings: what is packed comes back, and whatever else comes is one EncodingError."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EncodingError
from shared.protocol.update_encoding import (
    EVEN,
    FLOAT32,
    HEADER,
    LEVELS,
    SENT,
    WIRES,
    Encoding,
    Grid,
    Wire,
    pack,
    packed_bytes,
    unpack,
)

GRIDS = (Grid.fitted(3, largest=5.0, finest=0.02), Grid.fitted(2, largest=20.0, finest=0.1))


def values_of(encoding: Encoding, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Five that the encoding has."""
    generator = np.random.default_rng(seed)
    if encoding.wire == "int8":
        return np.concatenate([generator.choice(grid.values(), grid.length) for grid in encoding.grids])
    drawn = generator.standard_normal(5).astype(np.float32)
    kept = 0xFFFFFFFF if encoding.wire == "float32" else 0xFFFF0000
    return (drawn.view(np.uint32) & np.uint32(kept)).view(np.float32)


@pytest.mark.parametrize("encoding", [FLOAT32, Encoding("bfloat16"), Encoding("int8", GRIDS)])
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_packed_comes_back_to_the_last_bit_in_the_length_that_was_foretold(
    encoding: Encoding, seed: int
) -> None:
    update = values_of(encoding, seed)
    packed = pack(update, encoding)
    found, told = unpack(packed, encoding.wire)
    assert found.tobytes() == update.tobytes() and told == encoding
    assert len(packed) == packed_bytes(5, encoding.wire)


@pytest.mark.parametrize("wire", WIRES)
def test_zeros_are_as_long_as_an_update_and_come_back_as_zeros(wire: Wire) -> None:
    packed = pack(np.zeros(5, np.float32), Encoding.of_zeros(wire, 5))
    assert len(packed) == packed_bytes(5, wire) == {"float32": 20, "bfloat16": 10, "int8": 45}[wire]
    assert unpack(packed, wire)[0].tolist() == [0.0] * 5


@given(largest=st.floats(1e-6, 1e6), ratio=st.floats(1, 1e12))
def test_a_grid_goes_from_end_to_end_and_its_first_step_is_as_fine_as_was_asked(largest: float, ratio: float) -> None:
    values = Grid.fitted(1, largest=largest, finest=largest / ratio).values()
    assert values[-1] == -values[0] == pytest.approx(largest) and values[LEVELS] == 0
    assert values[LEVELS + 1] == pytest.approx(min(largest / ratio, largest / LEVELS), rel=1e-4)


def test_steps_grow_by_less_than_the_bend() -> None:
    grid = Grid.fitted(1, largest=10.0, finest=0.005)
    values = grid.values()[LEVELS:].astype(np.float64)
    steps = np.diff(values)
    assert (steps <= 0.005 * 1.01 + np.expm1(grid.bend) * values[:-1]).all() and grid.bend < 0.05


def hostile(
    lengths: tuple[int, int] = (3, 2), width: float = 1.0, bend: float = EVEN, codes: bytes = bytes(5)
) -> bytes:
    return b"".join(HEADER.pack(length, width, bend) for length in lengths) + codes


BAD: dict[str, tuple[Wire, bytes]] = {
    "half a float32": ("float32", bytes(7)),
    "half a bfloat16": ("bfloat16", bytes(7)),
    "half a grid": ("int8", bytes(39)),
    "a width that is no number": ("int8", hostile(width=float("nan"))),
    "an infinite width": ("int8", hostile(width=float("inf"))),
    "no width": ("int8", hostile(width=0.0)),
    "a negative width": ("int8", hostile(width=-1.0)),
    "a bend that is no number": ("int8", hostile(bend=float("nan"))),
    "a bend beyond all numbers": ("int8", hostile(bend=1e300)),
    "a bend that overflows float32": ("int8", hostile(bend=2.0)),
    "steps that vanish": ("int8", hostile(width=1e-300)),
    "one value too few": ("int8", hostile(codes=bytes(4))),
    "grids for billions of values": ("int8", hostile(lengths=(2**32 - 1, 2**32 - 1))),
    "a code that no grid has": ("int8", hostile(codes=struct.pack("5b", -128, 0, 0, 0, 0))),
}


@pytest.mark.parametrize("case", BAD)
def test_what_pack_never_gives_is_refused(case: str) -> None:
    wire, packed = BAD[case]
    with pytest.raises(EncodingError, match="Expected"):
        unpack(packed, wire)


def test_summands_of_a_secure_sum_travel_as_they_are() -> None:
    summand = np.array([0, -1, 2**63 - 1, -(2**63), 2**40 + 1])
    packed = pack(summand, Encoding("int64"))
    assert len(packed) == packed_bytes(5, "int64") == 40 and set(SENT) - set(WIRES) == {"int64"}
    found, encoding = unpack(packed, "int64")
    assert found.dtype == np.int64 and found.tolist() == summand.tolist() and encoding == Encoding("int64")
    assert pack(np.zeros(5, np.float32), Encoding.of_zeros("int64", 5)) == bytes(40)
    with pytest.raises(EncodingError, match="int64"):
        unpack(packed[:-1], "int64")


@given(packed=st.binary(max_size=80), wire=st.sampled_from(WIRES))
def test_no_bytes_do_anything_but_decode_or_be_refused(packed: bytes, wire: Wire) -> None:
    try:
        found, _ = unpack(packed, wire)
    except EncodingError:
        return
    assert found.dtype == np.float32 and (wire != "int8" or np.isfinite(found).all())
