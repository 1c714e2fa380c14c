"""Signal and noise of an update, against naive loops and draws."""

import math

import numpy as np
import pytest

from shared.errors import SettingsError
from shared.privacy.signal_to_noise import (
    LEARNS_LITTLE,
    LEARNS_NOTHING,
    Batch,
    Part,
    Prospect,
    Steps,
    adapter_start,
    best_batches,
    head_rate,
    least_that_helps,
    longest_signal,
    mean_batch,
    noise_length,
    prospect,
    ratio,
    shortest_noise,
)

PARTS = [Part("head", 16.0, 30), Part("adapter", 4.0, 200)]
STEPS = Steps([1.0, 0.8, 0.6], noise_multiplier=1.5, clip_norm=0.5, batch=Batch(units=20.0, divisor=25.0))


def own(*sizes: float) -> list[Batch]:
    """Of nodes that divide by their own size."""
    return [Batch(size, size) for size in sizes]


def noises(count: int, sizes: tuple[int, int] = (30, 200)) -> np.ndarray:
    """Updates (count, entries) of pure noise, step by step as training adds it."""
    generator, rates = np.random.default_rng(0), np.repeat([16.0, 4.0], sizes)
    total = np.zeros((count, len(rates)))
    for factor in STEPS.factors:
        drawn = generator.normal(0, STEPS.noise_multiplier * STEPS.clip_norm, total.shape)
        total += factor * rates * drawn / STEPS.batch.divisor
    return total


@pytest.mark.guarantee("the mean square length of the sum of all steps' noise is the square of this.")
def test_the_noises_length_is_what_drawn_noise_has() -> None:
    found = math.sqrt((noises(4000) ** 2).sum(axis=1).mean())
    # the standard error is 0.2 %: five of them fail by chance once in a million seeds
    assert noise_length(PARTS, STEPS) == pytest.approx(found, rel=0.01)


@pytest.mark.guarantee("no update without noise is longer, if no batch holds more than its expected number of units.")
def test_no_batch_of_clipped_gradients_moves_further_than_the_bound() -> None:
    generator, rates = np.random.default_rng(1), np.repeat([16.0, 4.0], [30, 200])
    worst = np.zeros(230)
    worst[0] = STEPS.clip_norm
    for same in (True, False):
        update = np.zeros(230)
        for factor in STEPS.factors:
            gradients = np.tile(worst, (20, 1)) if same else generator.normal(size=(20, 230))
            gradients *= STEPS.clip_norm / np.linalg.norm(gradients, axis=1, keepdims=True)
            update -= factor * rates * gradients.sum(axis=0) / STEPS.batch.divisor
        length = np.linalg.norm(update)
        assert length <= longest_signal(PARTS, STEPS) * (1 + 1e-12)
        assert not same or length == pytest.approx(longest_signal(PARTS, STEPS))


def test_drawn_noise_is_never_shorter_than_the_shortest() -> None:
    bound = shortest_noise([Part("head", 16.0, 300), Part("adapter", 4.0, 200)], STEPS)
    assert 0 < bound < np.linalg.norm(noises(10_000, (300, 200)), axis=1).min()
    many = [Part("adapter", 1.0, 10**6)]
    assert shortest_noise(many, STEPS) == pytest.approx(noise_length(many, STEPS), rel=0.01)


def test_a_learning_rate_changes_no_parts_ratio() -> None:
    assert ratio([Part("head", 0.1, 30)], STEPS) == pytest.approx(ratio([Part("head", 64.0, 30)], STEPS))


@pytest.mark.parametrize("divisors", [[10.0, 40.0, 40.0], [30.0, 30.0, 30.0]], ids=["own size", "typical size"])
def test_the_mean_over_nodes_has_the_noise_and_the_signal_of_its_batch(divisors: list[float]) -> None:
    units = np.array([10.0, 40.0, 40.0])
    found = mean_batch([Batch(*pair) for pair in zip(units, divisors, strict=True)])
    drawn = np.random.default_rng(2).normal(size=(200_000, 3)) / divisors
    assert 1 / found.divisor == pytest.approx(drawn.mean(axis=1).std(), rel=0.01)
    assert found.weight == pytest.approx((units / divisors).mean())


def test_a_cohort_of_equal_nodes_is_as_many_of_them() -> None:
    assert mean_batch(own(*[25.0] * 16)).units == pytest.approx(4 * 25)
    assert mean_batch(own(*[25.0] * 16), asked=4).units == pytest.approx(2 * 25)


def test_one_divisor_for_all_makes_the_mean_quieter_where_sizes_differ() -> None:
    sizes = [10.0, 40.0, 90.0]
    common = mean_batch([Batch(size, 50.0) for size in sizes])
    assert (
        common.units == pytest.approx(sum(sizes) / math.sqrt(3)) and common.units > 2.5 * mean_batch(own(*sizes)).units
    )
    assert mean_batch([Batch(size, 5.0) for size in sizes]).units == pytest.approx(common.units), "whichever it is"


def test_small_nodes_whose_noise_outweighs_them_are_left_out() -> None:
    few = own(400, 380, 5, 5)
    assert best_batches(own(400, 5, 380)) == own(400, 380)
    assert best_batches(own(100, 100, 80)) == own(100, 100, 80)
    assert best_batches(few, least=3) == few == best_batches(few, least=9)
    assert best_batches(own(*[1000] * 5 + [100] * 5), asked=3) == own(*[1000] * 5), "equal nodes stay together"


@pytest.mark.parametrize("asked", [None, 1, 7])
@pytest.mark.parametrize("divisor", [None, 150.0], ids=["own size", "typical size"])
def test_no_other_number_of_large_nodes_is_quieter(divisor: float | None, asked: int | None) -> None:
    sizes = sorted(np.random.default_rng(3).lognormal(5, 1, size=40).tolist(), reverse=True)
    some = [Batch(size, divisor or size) for size in sizes]
    every = [some[:count] for count in range(1, 41)]
    assert best_batches(some, asked=asked) == max(every, key=lambda nodes: mean_batch(nodes, asked=asked).units)


def test_prospects_meet_at_the_thresholds() -> None:
    assert prospect(LEARNS_NOTHING - 0.01) is Prospect.NOTHING
    assert prospect(LEARNS_NOTHING) is Prospect.LITTLE
    assert prospect(LEARNS_LITTLE) is Prospect.ENOUGH


def test_limits_that_were_measured_on_heads_do_not_judge_an_adapter_alone() -> None:
    assert prospect(LEARNS_LITTLE - 0.01, of_head=False) is Prospect.UNKNOWN
    assert prospect(LEARNS_LITTLE, of_head=False) is Prospect.ENOUGH


def test_the_least_that_helps_is_found_or_there_is_none() -> None:
    found = least_that_helps(lambda value: value / 2, low=1.0, high=100.0)
    assert found is not None and found == pytest.approx(2 * LEARNS_LITTLE, rel=0.051)
    assert least_that_helps(lambda value: value / 1000, low=1.0, high=100.0) is None


def test_a_part_without_entries_is_refused() -> None:
    with pytest.raises(SettingsError, match="dimension=0"):
        Part("head", 1.0, 0)


def test_a_part_that_is_clipped_by_itself_has_its_share_of_the_signal_and_all_of_its_noise() -> None:
    alone, shared = Part("head", 16.0, 30), Part("head", 16.0, 30, share=0.64)
    assert ratio([shared], STEPS) == pytest.approx(0.8 * ratio([alone], STEPS))
    adapter = Part("adapter", 4.0, 200, share=0.36)
    whole = longest_signal([shared, adapter], STEPS)
    assert whole == pytest.approx(math.hypot(longest_signal([shared], STEPS), longest_signal([adapter], STEPS)))
    assert whole <= longest_signal(PARTS, STEPS)


def test_a_heads_start_leaves_a_known_noise_between_two_answers() -> None:
    """Oracle: steps that are nothing but noise, taken one by one, and what they do to two outputs."""
    steps = Steps([1.0, 0.75, 0.5, 0.25], noise_multiplier=1.3, clip_norm=0.5, batch=STEPS.batch)
    rate, generator = head_rate(steps, feature_length=4.0), np.random.default_rng(0)
    features = 4.0 * np.eye(6)[2]
    weights = np.zeros((20_000, 2, 6))
    for factor in steps.factors:
        weights -= rate * factor * 1.3 * 0.5 * generator.standard_normal(weights.shape) / 25.0
    outputs = weights @ features
    assert (outputs[:, 0] - outputs[:, 1]).std() == pytest.approx(2.5, rel=0.02)
    quiet = Steps(steps.factors, noise_multiplier=1e-3, clip_norm=0.5, batch=STEPS.batch)
    assert head_rate(quiet, feature_length=4.0) == 128.0, "64 at a clipping norm of 1"


def test_an_adapters_start_is_where_expected_error_is_least() -> None:
    """Oracle: the best of many rates up to a quarter of the head's, for a step whose signal is 6 % of the longest."""
    rates = np.linspace(1e-4, 4.0, 100_000)
    for found in (3.0, 10.0, 50.0, 400.0):
        signal, noise = 0.06 * found, 1.0
        error = (rates / 16.0 * signal - signal) ** 2 + (rates / 16.0 * noise) ** 2
        start = adapter_start(16.0, found, 0.2)
        assert start.learning_rate == pytest.approx(rates[error.argmin()], abs=2e-4)
        assert start.head_share == pytest.approx(1 - 0.8 * start.learning_rate / 16.0)
        others = [adapter_start(16.0, found * math.sqrt(5), None), adapter_start(16.0, found / 2, 0.05)]
        assert all(other.learning_rate == pytest.approx(start.learning_rate) for other in others)
