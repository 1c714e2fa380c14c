"""Every suggestion helps a study to learn as much as it says."""

from collections.abc import Callable

import pytest

from server.forecast.forecast import forecast_study
from server.forecast.suggestions import suggest
from server.forecast.text import verdict
from shared.adapted_model.adapters import Layout
from shared.privacy.signal_to_noise import Prospect
from shared.study.declaration import Study

LAYOUT = Layout((("base.a.lora_B", (32, 8)), ("base.b.lora_B", (32, 8)), ("head.weight", (2, 32)), ("head.bias", (2,))))


def test_a_study_that_cannot_learn_is_named_and_every_suggestion_helps(make_study: Callable[..., Study]) -> None:
    study, sizes = make_study(privacy={"epsilon": 0.05}), {"north": 300, "south": 300}
    forecast = forecast_study(study, LAYOUT, sizes)
    suggestions = suggest(study, forecast)
    assert forecast.prospect is Prospect.NOTHING and verdict(forecast, suggestions)[0].startswith("This will not learn")
    needed = float(next(line for line in suggestions if line.startswith("privacy.epsilon")).split()[1])
    more = make_study(privacy={"epsilon": needed})
    assert forecast_study(more, LAYOUT, sizes).prospect is Prospect.ENOUGH
    less = make_study(privacy={"epsilon": 0.9 * needed})
    assert forecast_study(less, LAYOUT, sizes).prospect is not Prospect.ENOUGH
    times = float(suggestions[0].split()[1])
    assert forecast_study(study, LAYOUT, dict.fromkeys("ab", round(330 * times))).prospect is Prospect.ENOUGH


def test_one_small_site_among_large_ones_is_named(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 0.1})
    suggestions = suggest(study, forecast_study(study, LAYOUT, {"a": 400, "b": 400, "c": 10}))
    assert any(line.startswith("federation.smallest_declared_size: 400 leaves 2 sites") for line in suggestions)
    alone = suggest(study, forecast_study(study, LAYOUT, {"a": 400, "c": 10}))
    assert not any("leaves" in line for line in alone), "one site is no quorum"


def test_a_change_that_helps_and_is_not_enough_says_so(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 0.02})
    suggestions = suggest(study, forecast_study(study, LAYOUT, {"a": 400, "b": 400, "c": 100}))
    insufficient = [line for line in suggestions if "leaves 2 sites" in line or "gives" in line]
    assert insufficient and all("not enough by itself" in line for line in insufficient)


def test_a_typical_size_is_suggested_and_gives_what_it_says(make_study: Callable[..., Study]) -> None:
    study, sizes = make_study(privacy={"epsilon": 0.1}), {"a": 400, "b": 100}
    forecast = forecast_study(study, LAYOUT, sizes)
    (line,) = [line for line in suggest(study, forecast) if line.startswith("federation.typical_size: 250 gives")]
    better = forecast_study(make_study(privacy={"epsilon": 0.1}, federation={"typical_size": 250}), LAYOUT, sizes)
    assert float(line.split()[3]) == pytest.approx(better.ratio / forecast.ratio, abs=0.06)
    assert line.count("not enough by itself") == (better.prospect is not Prospect.ENOUGH)


def test_one_noise_for_all_sites_is_suggested_where_it_can_be_shared(make_study: Callable[..., Study]) -> None:
    one_step = {"training": {"local_steps": 1}, "privacy": {"epsilon": 0.3}}
    study, sizes = make_study(**one_step), {f"site {number}": 100 for number in range(10)}
    forecast = forecast_study(study, LAYOUT, sizes)
    (line,) = [line for line in suggest(study, forecast) if line.startswith("federation.secure_sum")]
    shared = forecast_study(
        make_study(**one_step, federation={"secure_sum": "shared", "typical_size": 100}), LAYOUT, sizes
    )
    assert float(line.split()[3]) == pytest.approx(shared.ratio / forecast.ratio, abs=0.06)
    two = forecast_study(study, LAYOUT, {"a": 100, "b": 100})
    assert not any("secure_sum" in line for line in suggest(study, two)), "each would know the other's update"
    lora = make_study(**one_step, adapter={"method": "lora"}, federation={"aggregation": "fedit"})
    assert not any("secure_sum" in line for line in suggest(lora, forecast_study(lora, LAYOUT, sizes)))


def test_nothing_is_suggested_where_noise_leaves_room(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 8.0})
    forecast = forecast_study(study, LAYOUT, {"a": 5000, "b": 5000})
    assert forecast.prospect is Prospect.ENOUGH and suggest(study, forecast) == []
