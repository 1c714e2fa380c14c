"""Releases chosen after seeing earlier ones: one fixed order holds what it promises, the best of two does not."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.privacy.accounting import ORDERS, best_order, epsilon_rdp
from shared.privacy.releases import SubsampledGaussian

Law = NDArray[np.float64]
EPSILON, DELTA, LOW, HIGH = 2.0, 1e-3, 5.0, 16.0
FIRST = (np.array([0.2075, 0.0176, 0.7749]), np.array([0.2044, 0.0107, 0.7849]))
"""The laws of a first release, with a record and without it."""
SECOND = [(0.00503, 0.000562), (0.79, 0.1638), (0.00442, 0.000478)]
"""What is released next, after each outcome: the probability of a yes with the record, and without it."""
ORDER_OF_SECOND = (LOW, HIGH, LOW)


def divergence(p: Law, q: Law, order: float) -> float:
    """Renyi divergence, the larger of both directions."""
    return max(float(np.log(np.sum(a**order * b ** (1 - order))) / (order - 1)) for a, b in ((p, q), (q, p)))


def budget(order: float) -> float:
    """The divergence at an order that converts to `EPSILON` at `DELTA` (Balle et al. 2020, Theorem 21)."""
    return EPSILON + (math.log(DELTA) + math.log(order)) / (order - 1) - math.log((order - 1) / order)


def coin(probability: float) -> Law:
    return np.array([probability, 1 - probability])


def true_delta(first: tuple[Law, Law], second: list[tuple[float, float]]) -> float:
    """The delta at `EPSILON` of both releases together, exactly."""
    with_record = np.concatenate([p * coin(a) for p, (a, _) in zip(first[0], second, strict=True)])
    without = np.concatenate([q * coin(b) for q, (_, b) in zip(first[1], second, strict=True)])
    return float(np.maximum(with_record - math.exp(EPSILON) * without, 0).sum())


def test_the_best_of_two_orders_is_no_filter() -> None:
    spent = {order: divergence(*FIRST, order) for order in (LOW, HIGH)}
    for (p, q), order in zip(SECOND, ORDER_OF_SECOND, strict=True):
        assert spent[order] + divergence(coin(p), coin(q), order) <= budget(order), "on each path one order has room"
    assert true_delta(FIRST, SECOND) > 1.7 * DELTA


@settings(max_examples=200)
@given(st.data())
def test_one_fixed_order_is_a_filter_whatever_is_chosen_after_seeing_the_first_release(data: st.DataObject) -> None:
    order = data.draw(st.sampled_from([LOW, HIGH]))
    weights = st.lists(st.floats(0.001, 1.0), min_size=3, max_size=3)
    p, q = (np.array(data.draw(weights)) for _ in range(2))
    first = (p / p.sum(), 0.8 * p / p.sum() + 0.2 * q / q.sum())
    left, second = budget(order) - divergence(*first, order), list[tuple[float, float]]()
    if left < 0:
        return
    for _ in range(3):
        yes = data.draw(st.floats(1e-5, 0.99))
        apart = data.draw(st.floats(0.0, 8.0))
        while divergence(coin(yes), coin(yes * math.exp(-apart)), order) > left:
            apart *= 0.95
        second.append((yes, yes * math.exp(-apart)))
    assert true_delta(first, second) <= DELTA


@settings(max_examples=60)
@given(st.floats(0.5, 20.0), st.floats(0.005, 1.0), st.integers(1, 2000), st.sampled_from([1.0, 3.0, 8.0]))
def test_what_fits_at_the_best_order_fits_at_the_one_that_it_fixes(
    sigma: float, rate: float, count: int, limit: float
) -> None:
    release = SubsampledGaussian(sigma, rate, count)
    order, best = best_order(release, epsilon=limit, delta=1e-5), epsilon_rdp([release], 1e-5)
    assert order in ORDERS
    assert (epsilon_rdp([release], 1e-5, order=order) <= limit) == (best <= limit)
    exactly = best_order(release, epsilon=best, delta=1e-5)
    assert epsilon_rdp([release], 1e-5, order=exactly) == best, "at the very limit only the best one does"
