"""The bound on an update's norm: above every honest one, and not far above."""

import math
from typing import Any

import numpy as np
import pytest

from server.rounds.update_bounds import keep_within, largest_plausible_norm, noise_floor, norm_bound
from shared.adapted_model.adapters import Layout
from shared.privacy.adapter_bound import AdapterBound, part_places
from shared.privacy.noise_schedule import plan
from shared.privacy.study_steps import batch_of, parts_in
from shared.protocol.messages import Vector
from shared.study.declaration import Study
from shared.study.schedule import round_factors

FOUR = Layout((("head.weight", (4,)),))


def test_norm_bound_lets_every_honest_round_pass_and_stops_ten_times_the_bound(make_study: Any) -> None:
    study: Study = make_study()
    bound = norm_bound(study, 1, FOUR)
    generator = np.random.default_rng(0)
    rate, per_step = 16.0, study.privacy.sampling_rate * study.federation.smallest_declared_size
    sigma = bound_sigma(study)
    lengths = []
    for _ in range(500):
        batch = generator.poisson(per_step, study.training.local_steps)
        noise = generator.normal(0, sigma, (study.training.local_steps, 4))
        steps = (batch[:, None] * np.array([[1.0, 0, 0, 0]]) + noise) * rate / per_step
        lengths.append(np.linalg.norm(steps.sum(0)))
    assert max(lengths) < bound < 10 * max(lengths)
    assert norm_bound(study, study.federation.rounds, FOUR) < bound


@pytest.mark.parametrize("declared", [10, 12, 200, 500, 799, 800, 801, 5000, 10**6])
@pytest.mark.parametrize("federation", [{}, {"typical_size": 200}, {"typical_size": 2}])
def test_no_admitted_size_has_honest_updates_beyond_the_bound(
    make_study: Any, federation: dict[str, int], declared: int
) -> None:
    """Oracle: the bound at each size by itself, and drawn rounds whose gradients all point one way."""
    study: Study = make_study(federation=federation)
    steps, divisor = study.training.local_steps, 0.1 * study.federation.divisor_size(declared)
    generator, sigma = np.random.default_rng(0), bound_sigma(study)
    units = generator.poisson(0.1 * declared, (500, steps, 1)) * np.array([1.0, 0, 0, 0])
    rates = 16.0 * np.array([1 - step / 9 for step in range(steps)])
    noisy = (units + generator.normal(0, sigma, (500, steps, 4))) / divisor
    lengths = np.linalg.norm((noisy * rates[:, None]).sum(axis=1), axis=1)
    alone = {"rate": 16.0, "factors": rates / 16.0, "clip_norm": 1.0}
    by_itself = largest_plausible_norm(
        **alone, noise_multiplier=sigma, expected_batch=0.1 * declared, divisor=divisor, dimension=4
    )
    bound = norm_bound(study, 1, FOUR)
    assert lengths.max() < by_itself <= bound * (1 + 1e-12)


def test_a_member_cannot_lead_the_adapter_to_where_no_node_trains_any_more(
    make_study: Any, caplog: pytest.LogCaptureFixture
) -> None:
    study, layout = make_study(), Layout((("base.lora_B.weight", (8,)), ("head.weight", (4,))))
    initial = np.zeros(layout.length, np.float32)
    within, adapter = keep_within(study, layout, initial), initial
    for number in (1, 2, 3):
        sent = within(number, adapter)
        assert AdapterBound(study, layout, initial).admits(number, sent)
        assert (sent is adapter) == (number == 1) and ("was cut" in caplog.text) == (number > 1)
        adapter = sent.copy()
        adapter[0] += norm_bound(study, number, layout) / 2  # the filter lets it pass, the other member is honest


LORA = Layout((("base.lora_B.weight", (40, 8)), ("head.weight", (4,))))


@pytest.mark.guarantee(
    "an update with its whole noise is called quiet with a probability below e^-17, whatever its records."
)
@pytest.mark.parametrize("declared", [50, 300, 100_000])
def test_no_update_with_its_noise_is_called_quiet_even_if_its_signal_undoes_what_it_can(
    make_study: Any, declared: int
) -> None:
    """False alarms in 1,500 updates: below 1e-4. Every step's signal is as long as it may be, and against the noise."""
    study: Study = make_study()
    floor, generator = noise_floor(study, LORA, 1, declared), np.random.default_rng(declared)
    for _ in range(500):
        update = drawn_update(study, declared, generator, noise=1.0)
        assert not floor.is_quiet(update)
    assert set(floor.shortest) == {"adapter", "head"} and floor.shortest["adapter"] > 0


@pytest.mark.parametrize(("noise", "named"), [(1.0, False), (0.5, True), (0.0, True)])
def test_half_of_the_noise_and_none_at_all_are_named(make_study: Any, noise: float, named: bool) -> None:
    study: Study = make_study(training={"local_steps": 1}, federation={"rounds": 9})
    floor, generator = noise_floor(study, LORA, 1, 60), np.random.default_rng(1)
    for _ in range(50):
        update = drawn_update(study, 60, generator, noise=noise, signal=0.1)
        assert floor.is_quiet(update) == named


def drawn_update(study: Study, declared: int, generator: Any, *, noise: float, signal: float = 1.0) -> Vector:
    """One site's first round, whose signals point against what the noise has moved so far."""
    batch, sigma = batch_of(study, declared), bound_sigma(study)
    update = np.zeros(LORA.length)
    for factor in round_factors(study, 1):
        for part in parts_in(study, LORA.tensors, 1):
            (place,) = part_places(LORA)[part.name]
            length = max(float(np.linalg.norm(update[place])), 1e-30)
            step = part.learning_rate * factor / batch.divisor
            longest = signal * step * math.sqrt(part.share or 1.0) * batch.units
            update[place] -= min(1.0, longest / length) * update[place]
            update[place] += noise * step * sigma * generator.standard_normal(part.dimension)
    return update.astype(np.float32)


def bound_sigma(study: Study) -> float:
    return plan(study.privacy, steps=study.total_steps).noise_multiplier
