"""Noise that nodes share: its cost at whole orders against sums over the grid, computed independently."""

import math
from functools import lru_cache

import dp_accounting as dp
import mpmath
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp

from shared.errors import SettingsError
from shared.privacy.accounting import (
    MOST_NUMBERS,
    ORDERS,
    WHOLE_ORDERS,
    best_order,
    epsilon_if_colluding,
    epsilon_rdp,
    order_of_limit,
    orders_for,
    tau,
)
from shared.privacy.calibration import noise_multiplier
from shared.privacy.grid import GRID, NOISE_STEPS, ROUNDING
from shared.privacy.releases import (
    SharedGaussian,
    SubsampledDiscreteGaussian,
    from_dict,
    has_shared,
    if_colluding,
    times,
    to_dict,
)

DELTA = 1e-5
TENTH = SharedGaussian(1.4387, 0.1, 48).with_nodes(4, 3, 1)


@lru_cache
def density(scale: float, terms: int) -> dict[int, mpmath.mpf]:
    """Law of a sum of discrete Gaussians over whole numbers, by convolution."""
    with mpmath.workprec(160):
        reach = math.ceil(9 * scale) + 12  # an order of 9 looks 9 shifts away
        numbers = range(-reach, reach + 1)
        one = {x: mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(scale) ** 2)) for x in numbers}
        total = sum(one.values())
        one = {x: chance / total for x, chance in one.items()}
        law = {0: mpmath.mpf(1)}
        for _ in range(terms):
            summed: dict[int, mpmath.mpf] = {}
            for a, p in law.items():
                for b, q in one.items():
                    summed[a + b] = summed.get(a + b, mpmath.mpf(0)) + p * q
            law = summed
        return law


def divergence(law: dict[int, mpmath.mpf], rate: float, order: float, *, added: bool) -> float:
    """Renyi divergence of one number's law with a record that shifts it by one in a share of the samples, and none."""
    with mpmath.workprec(160):
        moment = mpmath.mpf(0)
        for x, q in law.items():
            p = (1 - mpmath.mpf(rate)) * q + mpmath.mpf(rate) * law.get(x - 1, mpmath.mpf(0))
            over, under = (p, q) if added else (q, p)
            moment += mpmath.mpf(0) if over == 0 else over**order * under ** (1 - order)
        return float(mpmath.log(moment) / (order - 1))


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("scale", [0.8, 1.5, 3.0])
def test_both_directions_cost_no_more_than_the_gate_says_at_whole_orders(scale: float, rate: float) -> None:
    law = density(scale, 1)
    for order in (2.0, 3.0, 5.0, 9.0):
        stated = rdp.compute_rdp(q=rate, noise_multiplier=scale, steps=1, orders=[order])[0]
        assert divergence(law, rate, order, added=True) == pytest.approx(stated, rel=1e-6)
        if rate < 1:
            assert divergence(law, rate, order, added=False) <= stated * (1 + 1e-6)


@pytest.mark.parametrize(("scale", "terms"), [(0.5, 2), (0.6, 3), (0.8, 2), (1.0, 4)])
@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_a_sum_of_shares_costs_no_more_than_one_discrete_gaussian_and_tau(
    scale: float, terms: int, rate: float
) -> None:
    """At scales at which tau can be seen; the release is of one number, on a grid as coarse as the noise."""
    whole = scale * math.sqrt(terms)
    release = SharedGaussian(whole, rate, 1, 1.0, 1.0).with_nodes(terms + 1, terms + 1, 1)
    assert release.own_scale == pytest.approx(scale * (1 + ROUNDING)) and tau(release) > 1e-20
    for order in (2.0, 4.0, 7.0):
        stated = rdp.compute_rdp(q=rate, noise_multiplier=whole, steps=1, orders=[order])[0]
        more = (
            (1.0 if rate == 1 else 1.5)
            * 10
            * sum(math.exp(-2 * math.pi**2 * scale**2 * k / (k + 1)) for k in range(1, terms))
        )
        assert divergence(density(scale, terms), rate, order, added=True) <= stated + more


def test_tau_is_counted_though_it_underflows() -> None:
    assert tau(TENTH) == 0.0 == tau(SharedGaussian(1.0, 0.1, 1).with_nodes(100, 80, 10))
    coarse = SharedGaussian(1.0, 0.5, 3, 1.0, 0.2).with_nodes(4, 3, 1)
    fine = SharedGaussian(1.0, 0.5, 3).with_nodes(4, 3, 1)
    more = 3 * 1.5 * tau(coarse) * MOST_NUMBERS
    assert epsilon_rdp([coarse], DELTA, order=4.0) == pytest.approx(epsilon_rdp([fine], DELTA, order=4.0) + more)


def test_a_history_with_a_shared_release_is_judged_at_whole_orders_throughout() -> None:
    local = SubsampledDiscreteGaussian(1.4387, 0.1, 48)
    assert orders_for([local]) == ORDERS and orders_for([local, TENTH]) == WHOLE_ORDERS
    assert all(order == int(order) for order in WHOLE_ORDERS) and set(WHOLE_ORDERS) <= {*ORDERS, 10.0, *range(2, 10)}
    oracle = RdpAccountant(orders=WHOLE_ORDERS)
    oracle.compose(dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.4387)), 48))
    assert epsilon_rdp([TENTH], DELTA) == pytest.approx(oracle.get_epsilon(DELTA), rel=1e-3)
    assert epsilon_rdp([local], DELTA) < epsilon_rdp([TENTH], DELTA) < epsilon_rdp([local, TENTH], DELTA)
    assert best_order(TENTH, epsilon=3.0, delta=DELTA) in WHOLE_ORDERS


def test_calibration_and_gate_use_the_same_orders() -> None:
    for epsilon in (1.0, 3.0, 8.0):
        sigma = noise_multiplier(epsilon=epsilon, delta=DELTA, sampling_rate=0.1, steps=48, shared=True)
        release = SharedGaussian(sigma, 0.1, 48)
        order = best_order(release, epsilon=epsilon, delta=DELTA)
        assert epsilon_rdp([release], DELTA, order=order) <= epsilon < 1.001 * epsilon_rdp([release], DELTA)
        alone = noise_multiplier(epsilon=epsilon, delta=DELTA, sampling_rate=0.1, steps=48)
        assert alone <= sigma < 1.01 * alone, "less noise would be refused by the gate of a ledger"


# thousandths: within 1e-12 of a whole order the series that we compare with takes the logarithm of zero
@given(st.integers(1050, 60_000), st.floats(0.4, 4.0), st.sampled_from([0.01, 0.1, 1.0]))
def test_between_whole_orders_the_chord_is_never_below_the_curve(thousandths: int, sigma: float, rate: float) -> None:
    """Accounts that were judged at such an order before keep it."""
    order = thousandths / 1000
    ours = epsilon_rdp([SharedGaussian(sigma, rate, 200)], DELTA, order=order)
    exact = epsilon_rdp([SubsampledDiscreteGaussian(sigma, rate, 200)], DELTA, order=order)
    assert ours >= exact - 1e-9 * (1 + exact)
    whole = float(max(2, round(order)))
    assert epsilon_rdp([SharedGaussian(sigma, rate, 9)], DELTA, order=whole) == pytest.approx(
        epsilon_rdp([SubsampledDiscreteGaussian(sigma, rate, 9)], DELTA, order=whole), rel=1e-12
    )


@pytest.mark.parametrize(
    ("sizes", "cost"), [((4, 3, 1), 5.65), ((5, 4, 1), 8.45), ((10, 8, 1), 22.135), ((36, 30, 2), 438.4)]
)
def test_what_is_left_if_all_others_collude(sizes: tuple[int, int, int], cost: float) -> None:
    release = TENTH.with_nodes(*sizes)
    assert epsilon_rdp([release], DELTA) == pytest.approx(3.0, abs=1e-3), "whoever shares it"
    assert epsilon_if_colluding([release], DELTA) == pytest.approx(cost, rel=1e-3)
    alone = SharedGaussian(release.own_multiplier, 0.1, 48)
    assert epsilon_if_colluding([release], DELTA) == pytest.approx(epsilon_rdp([alone], DELTA), rel=1e-9)


@pytest.mark.guarantee("against so many colluders in each shared release, never less than the true epsilon.")
@pytest.mark.guarantee("more colluders never see more noise, and a node's own share is the least that they see.")
def test_the_curve_over_colluders_rises_from_the_promise_to_the_own_share() -> None:
    release = SharedGaussian(1.4387, 0.1, 48).with_nodes(30, 24, 3)
    costs = [epsilon_if_colluding([release], DELTA, colluders=number) for number in range(30)]
    assert costs[:4] == [epsilon_rdp([release], DELTA)] * 4 and costs == sorted(costs)
    assert costs[-1] == costs[23] == epsilon_if_colluding([release], DELTA) > costs[22]
    for number in (5, 12, 20):
        oracle = RdpAccountant(orders=WHOLE_ORDERS)
        seen = 1.4387 * math.sqrt((24 - number) / 21)
        oracle.compose(dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(seen)), 48))
        assert costs[number] == pytest.approx(oracle.get_epsilon(DELTA), rel=1e-3)


def test_releases_that_are_not_shared_cost_the_same_whoever_colludes() -> None:
    local = SubsampledDiscreteGaussian(1.4, 0.1, 48)
    unsettled = SharedGaussian(1.4, 0.1, 48)
    assert if_colluding([local, unsettled]) == [local], "without a roster nothing is released"
    assert epsilon_if_colluding([local], DELTA) == epsilon_rdp([local], DELTA)
    assert not has_shared([local]) and has_shared([local, unsettled])


def test_own_share_is_the_scale_that_is_drawn() -> None:
    release = SharedGaussian(2.0, 0.1, 1).with_nodes(10, 8, 1)
    assert release.own_scale == pytest.approx(2.0 / math.sqrt(7) * NOISE_STEPS, rel=1e-12)
    assert release.grid == GRID and release.own_multiplier == pytest.approx(2.0 / math.sqrt(7), rel=1e-12)
    with pytest.raises(SettingsError, match="without a roster"):
        _ = SharedGaussian(2.0, 0.1, 1).own_multiplier


def test_a_shared_release_survives_a_round_trip() -> None:
    for release in (TENTH, SharedGaussian(1.5, 0.1, 3)):
        assert from_dict(to_dict(release)) == release and type(from_dict(to_dict(release))) is SharedGaussian
        assert times(release, 2).count == 2 * release.count
    for sizes in ((3, 4, 1), (4, 1, 1), (4, 3, 0)):
        with pytest.raises(SettingsError, match="colluders < threshold"):
            TENTH.with_nodes(*sizes)


@pytest.mark.parametrize("limit", [0.5, 3.0, 8.5, 30.0, 500.0])
def test_the_order_of_a_limit_is_near_the_best(limit: float) -> None:
    """Gaussian noise whose cost at the best whole order is the limit costs little more at the limit's own order."""
    order = order_of_limit(limit, DELTA)
    sigmas = np.geomspace(0.02, 100, 4000)
    cost = np.array([epsilon_rdp([SharedGaussian(sigma, 1.0, 1)], DELTA) for sigma in sigmas[::40]])
    sigma = float(sigmas[::40][int(np.argmax(cost <= limit))])
    best = epsilon_rdp([SharedGaussian(sigma, 1.0, 1)], DELTA)
    assert order in WHOLE_ORDERS
    assert epsilon_rdp([SharedGaussian(sigma, 1.0, 1)], DELTA, order=order) <= 1.01 * best


def test_a_person_at_two_sites_pays_what_the_promise_names() -> None:
    """One opened sum holds both: 6.8 at epsilon 3, where two sites that each add all noise cost 4.1.

    At a whole order the moment is that of independent numbers of samples, k of two: sum over them of exp((S² - Q) / 2
    sigma²), S their sum and Q that of their squares.
    """
    sigma, rate, steps = 1.4387, 0.1, 48
    chances = np.log([(1 - rate) ** 2, 2 * rate * (1 - rate), rate**2])
    costs = []
    for order in range(2, 20):
        terms = []
        for ones in range(order + 1):
            for twos in range(order + 1 - ones):
                counts = np.array([order - ones - twos, ones, twos])
                ways = math.lgamma(order + 1) - sum(math.lgamma(count + 1) for count in counts)
                exponent = ((ones + 2 * twos) ** 2 - (ones + 4 * twos)) / (2 * sigma**2)
                terms.append(ways + float(counts @ chances) + exponent)
        divergence_of_all = steps * float(np.logaddexp.reduce(terms)) / (order - 1)
        spared = (math.log(DELTA) + math.log(order)) / (order - 1) - math.log((order - 1) / order)
        costs.append(divergence_of_all - spared)
    apart = SharedGaussian(sigma, rate, steps)
    assert min(costs) == pytest.approx(6.77, abs=0.01)
    assert epsilon_rdp([apart, apart], DELTA) == pytest.approx(4.11, abs=0.01)
