"""A membership attack recognises what the theory says."""

from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from simulations.audit.membership import hits, largest_rate, suspicion, true_positive_rate


def coins(adapters: int, units: int) -> Any:
    return np.random.default_rng(0).random((adapters, units)) < 0.5


@pytest.mark.parametrize("mu", [0.0, 1.0, 3.0])
def test_hits_on_gaussian_scores_are_those_of_the_closed_form(mu: float) -> None:
    """TPR = Phi(Phi^-1(0.01) + mu); 20,000 members of each kind, so four standard errors are 1.5 points at most."""
    included = coins(4, 10_000)
    scores = np.random.default_rng(1).standard_normal(included.shape) + mu * included
    ideal = float(ndtr(ndtri(0.01) + mu))
    assert true_positive_rate(scores, included) == pytest.approx(ideal, abs=0.003 + 0.015 * (mu > 0))


def test_intervals_cover_the_rate() -> None:
    """Of 20 intervals of 95 %, fewer than 15 cover with a chance below 1 in 3,000."""
    ideal, covered = float(ndtr(ndtri(0.01) + 1.5)), 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        included = generator.random((4, 500)) < 0.5
        interval = hits(generator.standard_normal(included.shape) + 1.5 * included, included)
        covered += interval.low <= ideal <= interval.high
    assert covered >= 15


def test_members_that_an_adapter_likes_better_than_its_shadows_do_are_suspected() -> None:
    included = coins(8, 400)
    generator = np.random.default_rng(2)
    hardness = generator.uniform(0, 3, 400)
    losses = hardness + 0.1 * generator.standard_normal(included.shape) - 0.5 * included
    assert true_positive_rate(suspicion(losses, included), included) > 0.8
    assert true_positive_rate(-losses, included) < 0.2, "without shadows, easy records hide it"


def test_losses_that_know_nothing_are_guessed_blindly() -> None:
    included = coins(8, 1000)
    losses = np.random.default_rng(3).exponential(size=included.shape)
    assert true_positive_rate(suspicion(losses, included), included) == pytest.approx(0.01, abs=0.008)


def test_scores_of_one_in_any_order_and_without_shadows_on_a_side_are_numbers() -> None:
    included = np.array([[True, False, True], [True, False, False], [True, False, True]])
    scores = suspicion(np.ones(included.shape), included)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(("epsilon", "most"), [(0.0, 0.01 + 1e-5), (1.0, 0.0272), (3.0, 0.2009), (8.0, 0.9997)])
def test_the_largest_rate_is_that_of_randomised_response(epsilon: float, most: float) -> None:
    assert largest_rate(epsilon, 1e-5) == pytest.approx(most, abs=1e-4)
