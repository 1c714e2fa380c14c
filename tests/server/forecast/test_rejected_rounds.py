"""Studies whose honest updates would be rejected are forecast beforehand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from server.forecast.forecast import forecast_study
from server.forecast.rejected_rounds import refuse_sure_rejections, rejected_rounds, smallest_accepted_size
from server.forecast.text import verdict
from server.rounds.update_bounds import LARGEST_NORM, norm_bound
from shared.adapted_model.adapters import Layout
from shared.errors import SettingsError
from shared.privacy.noise_schedule import plan
from shared.study.declaration import Study

LAYOUT = Layout((("base.a.lora_B", (32, 8)), ("base.b.lora_B", (32, 8)), ("head.weight", (2, 32)), ("head.bias", (2,))))


def loud(make_study: Callable[..., Study], **federation: Any) -> Study:
    return make_study(training={"learning_rate": 200.0}, federation={"smallest_declared_size": 10, **federation})


def test_rounds_that_are_sure_to_be_rejected_are_those_that_the_server_rejects(
    make_study: Callable[..., Study],
) -> None:
    study = loud(make_study)
    generator, rates = np.random.default_rng(0), np.repeat([4.0, 200.0], [512, 66])
    sigma = plan(study.privacy, steps=9).noise_multiplier

    def passed(number: int, declared: int) -> int:
        squares = sum((1 - step / 9) ** 2 for step in range(3 * number - 3, 3 * number))
        spread = sigma * np.sqrt(squares) / (study.privacy.sampling_rate * declared)
        lengths = np.linalg.norm(generator.normal(size=(2000, 578)) * rates * spread, axis=1)
        return int((lengths <= min(LARGEST_NORM, norm_bound(study, number, LAYOUT))).sum())

    rounds = rejected_rounds(study, LAYOUT, declared=10)
    assert rounds and not any(passed(number, 10) for number in rounds)
    assert rejected_rounds(study, LAYOUT, declared=40) == []
    assert all(passed(number, 40) for number in (1, 2, 3))


def test_a_study_that_throws_small_sites_updates_away_is_refused_with_the_size_that_is_enough(
    make_study: Callable[..., Study],
) -> None:
    study = loud(make_study)
    enough = smallest_accepted_size(study, LAYOUT)
    assert enough is not None
    with pytest.raises(SettingsError, match="of 3 rounds") as refused:
        refuse_sure_rejections(study, LAYOUT)
    assert f"smallest_declared_size to {enough} or more" in refused.value.hint
    refuse_sure_rejections(loud(make_study, smallest_declared_size=enough), LAYOUT)
    with pytest.raises(SettingsError):
        refuse_sure_rejections(loud(make_study, smallest_declared_size=enough - 1), LAYOUT)


def test_with_a_larger_typical_size_updates_are_accepted_that_noise_would_have_rejected(
    make_study: Callable[..., Study],
) -> None:
    with pytest.raises(SettingsError, match="noise longer than") as refused:
        refuse_sure_rejections(loud(make_study, typical_size=10), LAYOUT)
    assert "or raise federation.typical_size." in refused.value.hint
    refuse_sure_rejections(loud(make_study, typical_size=50), LAYOUT)


def test_the_forecast_warns_of_updates_that_are_rejected(make_study: Callable[..., Study]) -> None:
    forecast = forecast_study(loud(make_study), LAYOUT, {"north": 10, "south": 5000})
    count = len(rejected_rounds(loud(make_study), LAYOUT, declared=10))
    assert count and [node.rounds_rejected for node in forecast.nodes] == [count, 0]
    assert any(f"reject north in up to {count} of 3 rounds" in line for line in verdict(forecast, []))
