"""The sum that ignores order."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from server.aggregation.fixed_point import BLOCK, FRACTION_BITS, LARGEST_SUM, FixedPointSum
from server.aggregation.mean import UniformMean
from shared.errors import PeerError

finite = st.floats(-1000, 1000, width=32)
vectors = st.lists(arrays(np.float32, 5, elements=finite), min_size=1, max_size=12)


def mean_of(parts: list[np.ndarray]) -> np.ndarray:
    total = FixedPointSum(len(parts[0]))
    for part in parts:
        total.add(part)
    return total.mean()


@pytest.mark.guarantee("the same vectors give the same bytes in any order, and memory does not grow with their number.")
@given(vectors, st.randoms(use_true_random=False))
def test_order_changes_no_bit(parts: list[np.ndarray], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert mean_of(parts).tobytes() == mean_of(shuffled).tobytes()


@given(vectors)
def test_mean_is_the_exact_mean_to_the_resolution(parts: list[np.ndarray]) -> None:
    np.testing.assert_allclose(mean_of(parts), np.mean(np.array(parts, np.float64), axis=0), rtol=0, atol=2.0**-32)


@pytest.mark.guarantee("the same vectors give the same bytes in any order, and memory does not grow with their number.")
def test_memory_does_not_grow_with_the_number_of_vectors() -> None:
    total, vector = FixedPointSum(50_000), np.ones(50_000, np.float32)
    total.add(vector)
    tracemalloc.start()
    for _ in range(50):
        total.add(vector)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * vector.nbytes * 2


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7])
def test_blocks_give_the_bits_of_the_whole_vector_at_once(length: int) -> None:
    generator, total = np.random.default_rng(length), FixedPointSum(length)
    scales = np.exp2(generator.integers(-140, 20, (3, length)))  # from below float32's smallest normal number
    parts = [(scale * generator.standard_normal(length)).astype(np.float32) for scale in scales]
    expected = np.zeros(length, np.int64)
    for part in parts:
        total.add(part)
        expected += np.rint(np.ldexp(part.astype(np.float64), FRACTION_BITS)).astype(np.int64)
    np.testing.assert_array_equal(total.mean(), np.ldexp(expected.astype(np.float64), -FRACTION_BITS) / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, LARGEST_SUM, -LARGEST_SUM])
def test_what_could_spoil_the_sum_is_refused_and_leaves_it_as_it_was(bad: float) -> None:
    total = FixedPointSum(2)
    total.add(np.array([1, 2], np.float32))
    with pytest.raises(PeerError):
        total.add(np.array([0, bad], np.float32))
    with pytest.raises(PeerError):
        total.add(np.zeros(3, np.float32))
    assert total.mean().tolist() == [1, 2] and total.count == 1


def test_ffa_adds_the_mean_change_to_the_current_adapter() -> None:
    method = UniformMean(2)
    for update in ([1, 0], [3, -2]):
        method.add(np.array(update, np.float32))
    assert method.result(np.array([10, 10], np.float32)).tolist() == [12, 9]
    assert method.result(np.zeros(2, np.float32)).dtype == np.float32
