"""What a node adds to a secure sum: one step, its share of the noise, and whole numbers that nothing touches."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from client.vault.training.discrete_gaussian import discrete_gaussian
from client.vault.training.optimizer import PrivateOptimizer
from client.vault.training.randomness import KeyStream, StepRandomness
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.summand import shared_summand, site_weight
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.privacy.grid import GRID, NOISE_STEPS, sensitivity
from shared.privacy.releases import SharedGaussian, SubsampledDiscreteGaussian
from shared.protocol.fixed_point import as_integers
from shared.protocol.messages import Status, TrainTask
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Studies = Callable[..., Study]
FALSE_ALARM = 1e-6
SHARED: dict[str, Any] = {
    "federation": {"rounds": 3, "secure_sum": "shared", "typical_size": 60},
    "training": {"local_steps": 1},
    "privacy": {"sampling_rate": 0.5},
}


def seeded(number: int) -> SeededRandomnessForSimulation:
    return SeededRandomnessForSimulation(1, number)


def site(study: Study, records: Any, *, randomness: Any = seeded, declared: int = 60) -> RoundTrainer:
    return RoundTrainer(study, build(study), records, declared_size=declared, randomness=randomness)


def task(trainer: RoundTrainer) -> TrainTask:
    study = trainer.study
    return TrainTask(study.sha256, "run", 1, trainer.model.start, wire=study.sent_as)


def settled(trainer: RoundTrainer) -> SharedGaussian:
    assert isinstance(trainer.release, SharedGaussian)
    return trainer.release.with_nodes(10, 8, 1)


class Recorded:
    """Randomness that says what it was asked for; noise that is zero, or ends the world."""

    def __init__(self, noise: int | None = 0) -> None:
        self.noise, self.scales, self.batches = noise, list[float](), 0

    def __call__(self, _round: int) -> "Recorded":
        return self

    def step(self) -> StepRandomness:
        return self

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        self.batches += 1
        return KeyStream(bytes(32)).poisson_batch(count, sampling_rate)

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        self.scales.append(scale)
        return np.full(count, self.noise, np.int64)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        raise AssertionError("nothing is rounded after the noise")


@pytest.mark.guarantee(
    "exactly one step is taken, with exactly one draw of noise, of the share that the charged release says."
)
@pytest.mark.parametrize("adapter", [{"method": "ffa-lora"}, {"method": "ia3"}, {"method": "head-only"}])
def test_one_step_with_one_draw_of_the_nodes_own_share(
    make_study: Studies, make_records: Any, adapter: dict[str, str]
) -> None:
    recorded = Recorded()
    trainer = site(make_study(**SHARED, adapter=adapter), make_records(60), randomness=recorded)
    summand = trainer.summand(task(trainer), settled(trainer))
    assert summand is not None and summand.dtype == np.int64 and summand.any()
    sigma = trainer.release.noise_multiplier
    assert recorded.scales == [pytest.approx(sigma * NOISE_STEPS / math.sqrt(7), rel=1e-12)] and recorded.batches == 1
    # rate x gamma x sum / divisor is the step that the same round takes without a secure sum, but for its noise
    local = make_study(**SHARED | {"federation": {"rounds": 3, "typical_size": 60}}, adapter=adapter)
    alone = site(local, make_records(60), randomness=Recorded())
    update = alone.train(task(alone)).update
    rates = np.concatenate(
        [
            np.full(math.prod(shape), local.training.learning_rate if name.startswith("head.") else 1.0)
            for name, shape in alone.model.layout.tensors
        ]
    )
    np.testing.assert_allclose(-rates * GRID / (0.5 * 60) * summand, update, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_the_sum_is_the_same_whole_numbers_in_any_order_and_within_the_sensitivity(
    make_study: Studies, make_records: Any, unit: str
) -> None:
    from dataclasses import replace

    study = make_study(**SHARED | {"privacy": {"sampling_rate": 1.0, "unit": unit}})
    records = make_records(24)
    if unit == "patient":
        records = replace(records, units=np.arange(24) // 3)
    trainer = site(study, records, randomness=Recorded())
    inner = trainer.trainer()
    sums = []
    for order in (list(range(records.unit_count)), list(reversed(range(records.unit_count)))):
        optimizer = inner.optimizer(settled(trainer))
        for count in inner.gradients(np.array(order)):
            optimizer.accumulate(count)
        sums.append(optimizer.noisy_sum(Recorded()))
    assert sums[0].tobytes() == sums[1].tobytes()
    optimizer = inner.optimizer(settled(trainer))
    for count in inner.gradients(np.arange(records.unit_count - 1)):
        optimizer.accumulate(count)
    moved = sums[0] - optimizer.noisy_sum(Recorded())
    assert 0 < sum(int(step) ** 2 for step in moved.tolist()) <= (sensitivity(1.0) / GRID) ** 2


@pytest.mark.guarantee("once the noise is drawn nothing is clamped, checked or raised.")
@pytest.mark.guarantee("between the noise and what is returned no number is looked at, changed or checked.")
@pytest.mark.parametrize("noise", [0, 2**62, -(2**63), 2**63 - 1])
def test_whatever_the_noise_is_it_is_added_modulo_2_to_the_64(
    make_study: Studies, make_records: Any, noise: int
) -> None:
    study, records = make_study(**SHARED), make_records(60)
    quiet = site(study, records, randomness=Recorded())
    loud = site(study, records, randomness=Recorded(noise))
    without, with_it = (trainer.summand(task(trainer), settled(trainer)) for trainer in (quiet, loud))
    assert without is not None and with_it is not None
    expected = [(int(value) + noise + 2**63) % 2**64 - 2**63 for value in without.tolist()]
    assert with_it.tolist() == expected and not loud.broken


@pytest.mark.guarantee("it follows from the study and the declared size alone, and never exceeds 1.")
def test_a_heavy_site_is_scaled_before_the_noise_and_the_noise_is_not(make_study: Studies, make_records: Any) -> None:
    federation = SHARED["federation"] | {"typical_size": 10}
    study, recorded = make_study(**SHARED | {"federation": federation}), Recorded()
    assert [site_weight(study.federation, size) for size in (1, 10, 40, 80)] == [1.0, 1.0, 1.0, 0.5]
    light, heavy = (site(study, make_records(60), randomness=recorded, declared=size) for size in (40, 80))
    sums = [trainer.summand(task(trainer), settled(trainer)) for trainer in (light, heavy)]
    assert sums[0] is not None and sums[1] is not None
    assert recorded.scales[0] == recorded.scales[1]
    assert np.abs(sums[1] - sums[0] / 2).max() <= 60, "every record is rounded once more"
    with pytest.raises(ExactnessError, match="weight of at most 1"):
        light.trainer().optimizer(settled(light), weight=1.1)


@pytest.mark.guarantee("a round that failed has no summand at all, so no sum counts on noise that is not in it.")
def test_a_round_that_fails_has_no_summand(make_study: Studies, make_records: Any, monkeypatch: Any) -> None:
    trainer = site(make_study(**SHARED), make_records(60))
    trainer.trainer()
    monkeypatch.setattr(PrivateOptimizer, "accumulate", lambda *_: 1 / 0)
    assert trainer.summand(task(trainer), settled(trainer)) is None and trainer.broken


def test_a_summand_never_answers_a_bare_question(make_study: Studies, make_records: Any) -> None:
    """A share of the noise by itself hides little: without a mask it is no answer, and no other round takes it."""
    for mode in ("shared", "masked"):
        study = make_study(**SHARED | {"federation": SHARED["federation"] | {"secure_sum": mode}})
        trainer = site(study, make_records(60))
        reply = trainer.train(task(trainer))
        assert reply.status is Status.FAILED and not reply.update.any()


def test_only_the_planned_step_with_a_roster_is_taken(make_study: Studies, make_records: Any) -> None:
    trainer = site(make_study(**SHARED), make_records(60))
    good, inner, received = settled(trainer), trainer.trainer(), task(trainer).adapter
    sigma = good.noise_multiplier
    for wrong in (
        trainer.release,
        SharedGaussian(2 * sigma, 0.5, 1).with_nodes(10, 8, 1),
        SharedGaussian(sigma, 0.25, 1).with_nodes(10, 8, 1),
        SharedGaussian(sigma, 0.5, 2).with_nodes(10, 8, 1),
    ):
        with pytest.raises(ExactnessError, match="one step of the noise"):
            shared_summand(inner, received, randomness=seeded(1), release=wrong, weight=1.0)  # type: ignore[arg-type]
    with pytest.raises(ExactnessError, match="as the study plans it"):
        inner.train_round(received, factors=[1.0], randomness=seeded(1), release=good)


def test_a_masked_summand_is_the_update_as_the_server_adds_it_up(make_study: Studies, make_records: Any) -> None:
    plain, records = make_study(), make_records(60)
    masked = make_study(federation={"secure_sum": "masked"})
    alone, behind = site(plain, records), site(masked, records)
    update = alone.train(task(alone)).update
    assert isinstance(behind.release, SubsampledDiscreteGaussian) and not isinstance(behind.release, SharedGaussian)
    summand = behind.summand(task(behind), behind.release)
    assert summand is not None and summand.tobytes() == as_integers(update).tobytes()


def test_values_beyond_any_honest_one_are_cut_off_after_the_noise() -> None:
    update = np.array([0.0, -1.5, 2e6, -np.inf, np.nan, 2.0**-33], np.float32)
    assert as_integers(update).tolist() == [0, -3 * 2**31, 1000 * 2**32, -1000 * 2**32, 0, 0]


def _shares(count: int, sigma: float, numbers: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(count)

    def words(asked: int) -> NDArray[np.uint64]:
        return generator.integers(0, 2**64, asked, dtype=np.uint64)

    return sum(
        (discrete_gaussian(words, numbers, sigma / math.sqrt(7) * NOISE_STEPS) for _ in range(count)),
        np.zeros(numbers, np.int64),
    )


def _p_value(noise: NDArray[np.int64], sigma: float) -> float:
    """Two-sided, of the sum of squares: chi-square where the numbers have this sigma."""
    squares = float(((noise / (sigma * NOISE_STEPS)) ** 2).sum())
    return float(2 * min(stats.chi2.cdf(squares, len(noise)), stats.chi2.sf(squares, len(noise))))


@pytest.mark.parametrize("sigma", [0.7, 1.4, 40.0])
def test_the_noise_of_h_shares_is_the_whole_and_less_is_refused(sigma: float) -> None:
    """False alarms: one in a million."""
    noise = _shares(7, sigma, 4000)
    assert _p_value(noise, sigma) > FALSE_ALARM
    assert _p_value(noise, 2 / 3 * sigma) < FALSE_ALARM and _p_value(noise, 3 / 2 * sigma) < FALSE_ALARM
    assert stats.kstest(noise / (sigma * NOISE_STEPS), "norm").pvalue > FALSE_ALARM
    assert _p_value(_shares(6, sigma, 4000), sigma) < FALSE_ALARM, "a missing share"
    assert _p_value(_shares(8, sigma, 4000), sigma) < FALSE_ALARM, "one more than h"


def test_a_gpu_draws_the_share_ahead(make_study: Studies, make_records: Any, device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("runs with --device=cuda on a machine that has one")
    study, records = make_study(**SHARED), make_records(60)
    here, there = site(study, records), site(study, records)
    there.model.to(device)
    sums = [trainer.summand(task(trainer), settled(trainer)) for trainer in (here, there)]
    assert sums[0] is not None and sums[1] is not None
    assert np.linalg.norm((sums[0] - sums[1]).astype(float)) < 1e-3 * 60 / GRID
