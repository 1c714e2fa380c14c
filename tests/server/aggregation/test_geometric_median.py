"""The geometric median: the point of least distance, in any order, hardly moved by one update however long it is."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from server.aggregation.geometric_median import GeometricMedian
from server.aggregation.mean import UniformMean
from shared.errors import PeerError
from shared.protocol.messages import Vector

D = 4000


def combined(updates: list[Vector], parts: tuple[list[slice], ...] = ()) -> Vector:
    median = GeometricMedian(len(updates[0]), parts)
    for update in updates:
        median.add(update)
    return median.result(np.zeros(len(updates[0]), np.float32))


def cost(point: NDArray[np.float64], updates: list[Vector]) -> float:
    return float(sum(np.linalg.norm(update - point) for update in updates))


def noise(count: int, seed: int) -> list[Vector]:
    return [*np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)]


@pytest.mark.guarantee("the same updates give the same bytes in any order, and memory does not grow with their number.")
def test_order_changes_no_bit() -> None:
    updates = [(10.0**place * update).astype(np.float32) for place, update in enumerate(noise(4, 1))]
    assert len({combined(list(some)).tobytes() for some in permutations(updates)}) == 1


@pytest.mark.guarantee("the same updates give the same bytes in any order, and memory does not grow with their number.")
def test_memory_does_not_grow_with_the_number_of_updates() -> None:
    median, update = GeometricMedian(8_000), np.ones(8_000, np.float32)
    median.add(update)
    tracemalloc.start()
    for number in range(30):
        median.add(update + number)
    median.result(update)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * update.nbytes


def test_no_point_near_it_has_a_smaller_sum_of_distances() -> None:
    generator = np.random.default_rng(3)
    updates = [*(np.exp(generator.normal(0, 1, (7, 1))) * generator.standard_normal((7, 5))).astype(np.float32)]
    centre = combined(updates).astype(np.float64)
    least = cost(centre, updates)
    for shift in generator.standard_normal((200, 5)):
        assert cost(centre + 0.01 * shift, updates) > least - 1e-6


def test_one_update_two_and_equal_ones_are_their_mean() -> None:
    one, other = noise(2, 4)
    assert combined([one]).tolist() == one.tolist()
    assert combined([one] * 5).tolist() == one.tolist()
    np.testing.assert_allclose(combined([one, other]), (one + other) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sites", [5, 20])
@pytest.mark.parametrize("attack", ["none", "ten times as long", "turned round, three times as long"])
def test_what_one_attacker_costs_under_noise(sites: int, attack: str) -> None:
    """Errors in units of the honest mean's noise, mean of 8 seeds; the signal is as long as a tenth of the noise."""
    signal = np.zeros(D)
    signal[0] = 0.1 * np.sqrt(D)
    factor = {"none": 1.0, "ten times as long": 10.0}.get(attack, -3.0)
    errors = dict[str, list[float]](mean=[], median=[])
    for seed in range(8):
        updates = [(signal + update).astype(np.float32) for update in noise(sites, seed)]
        updates[0] = (factor * updates[0]).astype(np.float32)
        mean = UniformMean(D)
        for update in updates:
            mean.add(update)
        results = {"mean": mean.result(np.zeros(D, np.float32)), "median": combined(updates)}
        for name, result in results.items():
            errors[name].append(float(np.linalg.norm(result - signal)) / np.sqrt(D / sites))
    at = {name: float(np.mean(values)) for name, values in errors.items()}
    if attack == "none":
        assert at["median"] == pytest.approx(at["mean"], rel=0.01), "it costs honest rounds nothing"
    else:
        assert at["median"] < {5: 1.5, 20: 1.15}[sites] < at["mean"] or at["median"] < 1.2


def test_a_head_that_is_turned_round_does_not_hide_behind_a_loud_adapter() -> None:
    head, adapter = [slice(0, 50)], [slice(50, D)]
    updates = noise(5, 5)
    for update in updates:
        update[head[0]] = 1 + 0.1 * update[head[0]]
    updates[0][head[0]] *= -20
    whole, by_part = combined(updates), combined(updates, (head, adapter))
    assert whole[:50].mean() < 0 < 0.9 < by_part[:50].mean()


def test_what_is_no_update_is_refused() -> None:
    median = GeometricMedian(3)
    for update in (np.zeros(2, np.float32), np.array([0, np.nan, 0], np.float32)):
        with pytest.raises(PeerError, match="Expected 3 finite floats"):
            median.add(update)
