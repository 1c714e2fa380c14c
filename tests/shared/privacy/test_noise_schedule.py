"""Noise follows from the study alone."""

from collections.abc import Callable

import pytest

from shared.errors import BudgetError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.calibration import noise_multiplier
from shared.privacy.noise_schedule import declared_size, plan
from shared.privacy.releases import SubsampledGaussian
from shared.study.declaration import Study
from shared.study.sections import Performance

DELTA = 1e-5


@pytest.mark.guarantee("rounded up, so the history with these steps never costs more than `epsilon` at `delta`.")
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0, 8.0])
def test_calibrated_noise_keeps_the_budget_and_wastes_little(epsilon: float) -> None:
    sigma = noise_multiplier(epsilon=epsilon, delta=DELTA, sampling_rate=0.1, steps=60)
    assert epsilon_rdp([SubsampledGaussian(sigma, 0.1, 60)], DELTA) <= epsilon
    assert epsilon_rdp([SubsampledGaussian(sigma - 0.001, 0.1, 60)], DELTA) > epsilon


def test_earlier_releases_leave_less_room() -> None:
    history = (SubsampledGaussian(2.0, 0.1, 50),)
    later = noise_multiplier(epsilon=3, delta=DELTA, sampling_rate=0.1, steps=50, history=history)
    planned = SubsampledGaussian(later, 0.1, 50)
    assert epsilon_rdp([*history, planned], DELTA) <= 3
    assert later > noise_multiplier(epsilon=3, delta=DELTA, sampling_rate=0.1, steps=50)


def test_spent_budget_is_refused_with_the_figure() -> None:
    with pytest.raises(BudgetError, match="costs"):
        noise_multiplier(
            epsilon=1, delta=DELTA, sampling_rate=0.1, steps=1, history=(SubsampledGaussian(0.8, 0.5, 50),)
        )


@pytest.mark.guarantee(
    "noise multiplier, sampling rate, steps and clipping follow from the study alone, never from data, site "
    "or performance settings."
)
def test_no_performance_setting_changes_noise_sampling_steps_or_clipping(make_study: Callable[..., Study]) -> None:
    other = {
        "micro_batch_tokens": 64,
        "threads": 3,
        "device": "cpu",
        "precision": "bfloat16",
        "activation_checkpointing": True,
        "fit_memory": True,
        "activation_cache": False,
        "activation_cache_limit_bytes": 1,
        "activation_storage": "float16",
    }
    assert set(other) == set(Performance.model_fields)
    slow, fast = make_study(), make_study(performance=other)
    assert plan(slow.privacy, steps=slow.total_steps) == plan(fast.privacy, steps=fast.total_steps)
    assert slow.sha256 == fast.sha256


@pytest.mark.parametrize(
    ("count", "declared"), [(0, 0), (3, 3), (99, 99), (8473, 8500), (8449, 8400), (105000, 100000)]
)
def test_declared_size_has_two_digits(count: int, declared: int) -> None:
    assert declared_size(count) == declared
