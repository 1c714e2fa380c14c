"""Accounting against independent oracles: dp-accounting, and closed forms."""

import math
import subprocess
import sys

import dp_accounting as dp
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.privacy.accounting import ORDERS, epsilon_prv, epsilon_rdp
from shared.privacy.releases import Gaussian, SubsampledGaussian, from_dict, times, to_dict

DELTA = 1e-5
SETTINGS = [(1.0, 0.1, 100), (1.8, 0.1, 100), (4.3, 0.05, 400), (0.7, 0.01, 1000), (50.0, 0.01, 10)]


def event(sigma: float, rate: float, count: int) -> dp.DpEvent:
    return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), count)


@pytest.mark.parametrize(("sigma", "rate", "count"), SETTINGS)
def test_rdp_agrees_with_dp_accounting(sigma: float, rate: float, count: int) -> None:
    oracle = RdpAccountant(orders=ORDERS)
    oracle.compose(event(sigma, rate, count))
    ours = epsilon_rdp([SubsampledGaussian(sigma, rate, count)], DELTA)
    assert ours == pytest.approx(oracle.get_epsilon(DELTA), rel=1e-3)


@pytest.mark.guarantee("never less than the true epsilon of the composed history at this delta.")
@pytest.mark.parametrize(("sigma", "rate", "count"), SETTINGS[:4])
def test_rdp_is_never_below_the_numerical_optimum(sigma: float, rate: float, count: int) -> None:
    oracle = PLDAccountant()
    oracle.compose(event(sigma, rate, count))
    release = [SubsampledGaussian(sigma, rate, count)]
    prv = epsilon_prv(release, DELTA)
    assert prv == pytest.approx(oracle.get_epsilon(DELTA), abs=0.02, rel=0.02)
    assert epsilon_rdp(release, DELTA) >= oracle.get_epsilon(DELTA) - 1e-6


def test_full_batches_follow_the_closed_form() -> None:
    # RDP of the Gaussian mechanism is alpha / (2 sigma^2); conversion of Balle et al. 2020, Theorem 21
    def converted(alpha: float) -> float:
        curve = 10 * alpha / (2 * 4.0**2)
        return curve + math.log((alpha - 1) / alpha) - (math.log(DELTA) + math.log(alpha)) / (alpha - 1)

    assert epsilon_rdp([Gaussian(4.0, 10)], DELTA) == pytest.approx(min(map(converted, ORDERS)), rel=1e-9)


def test_composition_ignores_order_and_grouping() -> None:
    a, b = SubsampledGaussian(1.0, 0.1, 30), SubsampledGaussian(2.0, 0.2, 20)
    halves = [SubsampledGaussian(1.0, 0.1, 15), b, SubsampledGaussian(1.0, 0.1, 15)]
    assert epsilon_rdp([a, b], DELTA) == pytest.approx(epsilon_rdp(halves, DELTA), rel=1e-12)


@settings(max_examples=25)
@given(st.floats(0.6, 8), st.floats(0.01, 0.5), st.integers(1, 200))
def test_more_steps_cost_more_and_more_noise_costs_less(sigma: float, rate: float, count: int) -> None:
    cost = epsilon_rdp([SubsampledGaussian(sigma, rate, count)], DELTA)
    assert epsilon_rdp([SubsampledGaussian(sigma, rate, count + 1)], DELTA) >= cost
    assert epsilon_rdp([SubsampledGaussian(sigma * 1.1, rate, count)], DELTA) <= cost + 1e-9


def test_nothing_released_costs_nothing() -> None:
    assert epsilon_rdp([], DELTA) == 0.0
    assert epsilon_prv([SubsampledGaussian(1.0, 0.1, 0)], DELTA) == 0.0


def test_release_without_noise_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"noise_multiplier=0\.0"):
        SubsampledGaussian(0.0, 0.1, 1)


def test_release_survives_a_round_trip() -> None:
    for release in (SubsampledGaussian(1.5, 0.1, 3, 0.5), Gaussian(2.0, 1)):
        assert from_dict(to_dict(release)) == release
    with pytest.raises(SettingsError, match="mechanism"):
        from_dict({"mechanism": "laplace"})


def test_privacy_package_imports_neither_torch_nor_flower() -> None:
    imports = "import sys, shared.privacy.noise_schedule, shared.privacy.accounting"
    code = f"{imports}; print({{'torch', 'flwr'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


@pytest.mark.parametrize("release", [SubsampledGaussian(1.5, 0.1, 10, 2.0), Gaussian(1.5, 10, 2.0)])
def test_a_repeated_release_costs_what_its_repetitions_cost(release: SubsampledGaussian | Gaussian) -> None:
    assert epsilon_rdp([times(release, 3)], DELTA) == epsilon_rdp([release, release, release], DELTA)
    assert to_dict(times(release, 3)) == to_dict(release) | {"count": 30}
