"""The bound holds where the truth is known, and shows about as much as it can."""

import dp_accounting
import numpy as np
import pytest
from scipy import stats
from scipy.special import logit

from simulations.audit.one_run_bound import (
    Guesses,
    epsilon_of_any,
    epsilon_of_gaussian,
    gaussian_epsilon,
    guess,
)

DELTA = 1e-5
JAX_PRIVACY = {
    (5000, 500, 312): 0.4700,
    (5000, 500, 410): 1.8596,
    (1000, 100, 82): 1.5779,
    (200, 20, 19): 1.9845,
    (10000, 1000, 956): 3.9804,
}
"""Bounds by canaries, guesses and right ones: the recursion of google-deepmind/jax_privacy at 03a095e
(`_epsilon_one_run_fdp`), with noise from dp-accounting."""


def guesses_about_noise(sigma: float, *, canaries: int, seed: int) -> Guesses:
    generator = np.random.default_rng(seed)
    included = generator.random(canaries) < 0.5
    return guess(sigma * generator.standard_normal(canaries) + included, included)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0, 20.0])
def test_the_noise_of_an_epsilon_is_that_of_dp_accounting(epsilon: float) -> None:
    sigma = dp_accounting.get_sigma_gaussian(epsilon, DELTA)
    assert gaussian_epsilon(1 / sigma, delta=DELTA) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("guesses", JAX_PRIVACY)
def test_the_bound_is_that_of_another_library(guesses: tuple[int, int, int]) -> None:
    assert epsilon_of_gaussian(Guesses(*guesses), delta=DELTA) == pytest.approx(JAX_PRIVACY[guesses], abs=1e-3)


@pytest.mark.parametrize("correct", [60, 75, 99])
def test_without_delta_the_bound_of_any_noise_is_clopper_pearsons(correct: int) -> None:
    share = stats.beta.ppf(0.05, correct, 100 - correct + 1)
    assert epsilon_of_any(Guesses(1000, 100, correct), delta=0.0) == pytest.approx(max(0.0, logit(share)), abs=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_gaussian_noise_is_rarely_refuted_at_its_own_epsilon(epsilon: float) -> None:
    """At most 5 % in theory; 200 runs exceed 20 times with a chance below 0.3 % even then."""
    sigma = dp_accounting.get_sigma_gaussian(epsilon, DELTA)
    runs = [guesses_about_noise(sigma, canaries=400, seed=seed) for seed in range(200)]
    assert sum(epsilon_of_gaussian(run, delta=DELTA) > epsilon for run in runs) < 20
    assert sum(epsilon_of_any(run, delta=DELTA) > epsilon for run in runs) < 20


@pytest.mark.parametrize(
    ("epsilon", "canaries", "shown", "shown_of_any"), [(1.0, 5000, 0.51, 0.39), (3.0, 1000, 1.7, 1.15)]
)
def test_ideal_noise_shows_so_much(epsilon: float, canaries: int, shown: float, shown_of_any: float) -> None:
    """The mean of 12 runs: neither a bound that proves nothing, nor one that proves too much."""
    sigma = dp_accounting.get_sigma_gaussian(epsilon, DELTA)
    runs = [guesses_about_noise(sigma, canaries=canaries, seed=seed) for seed in range(12)]
    assert np.mean([epsilon_of_gaussian(run, delta=DELTA) for run in runs]) == pytest.approx(shown, abs=0.15)
    assert np.mean([epsilon_of_any(run, delta=DELTA) for run in runs]) == pytest.approx(shown_of_any, abs=0.12)


def test_guesses_that_are_no_better_than_coins_show_nothing() -> None:
    for guesses in (Guesses(1000, 100, 50), Guesses(1000, 100, 0), Guesses(10, 0, 0)):
        assert epsilon_of_gaussian(guesses, delta=DELTA) == epsilon_of_any(guesses, delta=DELTA) == 0.0


def test_more_right_guesses_show_more() -> None:
    shown = [epsilon_of_gaussian(Guesses(1000, 100, correct), delta=DELTA) for correct in range(50, 101, 5)]
    assert shown == sorted(shown) and shown[-1] > 4
