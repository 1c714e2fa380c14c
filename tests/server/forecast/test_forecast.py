"""A forecast from public numbers alone is the accountant's, and what a changed study then gives."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.forecast.forecast import forecast_study, read_sizes
from server.forecast.text import facts, warnings
from server.forecast.values import StudyForecast
from shared.adapted_model.adapters import Layout
from shared.errors import BudgetError, SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import NoiseSchedule, plan, schedule_of
from shared.study.declaration import Study, load_study_of

LAYOUT = Layout((("base.a.lora_B", (32, 8)), ("base.b.lora_B", (32, 8)), ("head.weight", (2, 32)), ("head.bias", (2,))))
SIZES = {"north": 300, "south": 5012, "tiny": 4}


def test_the_forecast_is_the_accountants(make_study: Callable[..., Study]) -> None:
    study = make_study()
    forecast, schedule = forecast_study(study, LAYOUT, SIZES), plan(study.privacy, steps=9)
    assert (forecast.noise_multiplier, forecast.steps) == (schedule.noise_multiplier, 9)
    assert forecast.epsilon_by_round[1] == epsilon_rdp([schedule.release(6)], study.privacy.delta)
    assert (
        forecast.epsilon_prv is not None
        and forecast.epsilon_prv < forecast.epsilon_by_round[-1] <= study.privacy.epsilon
    )
    assert forecast.fits and not forecast_study(study, LAYOUT, SIZES, spent_steps=1).fits


def test_nodes_are_forecast_by_declared_size_and_small_ones_are_left_out(make_study: Callable[..., Study]) -> None:
    forecast = forecast_study(make_study(), LAYOUT, SIZES)
    assert [(node.name, node.declared_size) for node in forecast.nodes] == [("north", 300), ("south", 5000)]
    assert forecast.nodes[1].expected_batch == forecast.nodes[1].divisor == pytest.approx(500)
    assert forecast.left_out == ["tiny"]
    assert forecast.nodes[0].study_ratio < forecast.ratio < forecast.nodes[1].study_ratio
    with pytest.raises(SettingsError, match="smallest_declared_size=10"):
        forecast_study(make_study(), LAYOUT, {"tiny": 4})


def test_bytes_are_those_of_the_trained_entries(make_study: Callable[..., Study]) -> None:
    forecast = forecast_study(make_study(), LAYOUT, SIZES)
    assert [(part.name, part.dimension) for part in forecast.parts] == [("head", 66), ("adapter", 512)]
    assert (forecast.bytes_up_per_round, forecast.bytes_down_per_round) == (4 * 578, 4 * 578)
    assert forecast.bytes_total == 2 * 3 * 4 * 578
    small = forecast_study(make_study(federation={"wire": "int8"}), LAYOUT, SIZES)
    assert small.bytes_up_per_round == 578 + 40 and small.bytes_total == 3 * (578 + 40 + 4 * 578)


def test_whitening_is_suggested_where_noise_on_moments_is_low_and_its_head_starts_faster(
    make_study: Callable[..., Study],
) -> None:
    loud, some, quiet = (forecast_study(make_study(), LAYOUT, {"a": size, "b": size}) for size in (50, 300, 30_000))
    assert loud.whitening is not None and quiet.whitening is not None and loud.whitening.width == 32
    assert loud.whitening.edge == pytest.approx(600 * quiet.whitening.edge)
    assert "it may gain, or cost its round" in facts(some)["whitening"]
    assert not loud.whitening.possible and quiet.whitening.possible
    assert "too loud to gain by it" in facts(loud)["whitening"]
    assert (
        facts(quiet)["whitening"].startswith("off; of 32 directions") and "worth a trial" in facts(quiet)["whitening"]
    )
    on = make_study(training={"whitening": True})
    forecast = forecast_study(on, Layout((*LAYOUT.tensors, ("head.moments.weight", (32, 32)))), {"a": 50, "b": 50})
    assert forecast.steps == loud.steps and forecast.noise_multiplier == loud.noise_multiplier
    # six of nine steps train, so less noise adds up in the head, and a whitened head starts at twice the rate
    assert forecast.head_start is not None and loud.head_start is not None
    assert 2.2 * loud.head_start < forecast.head_start < 2.6 * loud.head_start
    assert facts(forecast)["whitening"].startswith("on; ")
    assert quiet.as_dict()["whitening"]["possible"] and not quiet.as_dict()["typical_size"]["helps"]


@pytest.mark.parametrize(("epsilon", "least", "most"), [(0.5, 1.0, 1.1), (8.0, 1.15, 1.5)])
def test_a_plan_says_what_twice_the_rounds_would_gain(
    make_study: Callable[..., Study], epsilon: float, least: float, most: float
) -> None:
    def over(rounds: int) -> StudyForecast:
        study = make_study(privacy={"epsilon": epsilon}, federation={"rounds": rounds}, training={"local_steps": 6})
        return forecast_study(study, LAYOUT, SIZES)

    forecast, longer = over(10), over(20)
    assert forecast.epsilon_by_round[-1] == pytest.approx(longer.epsilon_by_round[-1], rel=0.01)
    assert longer.ratio / forecast.ratio == pytest.approx(forecast.gain_of_twice_the_rounds)
    assert forecast.gain_of_twice_the_rounds is not None and least < forecast.gain_of_twice_the_rounds < most
    assert facts(forecast)["twice the rounds"].startswith(f"{forecast.gain_of_twice_the_rounds:.2f} times that ratio")


def test_a_plan_is_made_also_where_twice_the_rounds_would_need_too_much_noise(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(study: Study) -> NoiseSchedule:
        if study.total_steps > 9:
            raise BudgetError("Expected a larger epsilon.")
        return schedule_of(study)

    monkeypatch.setattr("shared.privacy.study_steps.schedule_of", limited)
    forecast = forecast_study(make_study(), LAYOUT, SIZES)
    assert forecast.gain_of_twice_the_rounds is None and "no practical noise" in facts(forecast)["twice the rounds"]


def test_an_adapters_rate_follows_its_noise(make_study: Callable[..., Study]) -> None:
    fast = forecast_study(make_study(training={"adapter_learning_rate": 16.0}), LAYOUT, SIZES)
    start = fast.adapter_start
    assert start is not None and 0 < start.learning_rate < 4 and start.head_share > 0.9
    suggested = {
        "training": {"adapter_learning_rate": start.learning_rate},
        "privacy": {"head_share": start.head_share},
    }
    slow = forecast_study(make_study(**suggested), LAYOUT, SIZES)
    assert slow.adapter_start is not None  # neither rate nor share moves what is suggested
    assert slow.adapter_start.learning_rate == pytest.approx(start.learning_rate)
    assert slow.adapter_start.head_share == pytest.approx(start.head_share)
    clearer = forecast_study(make_study(), LAYOUT, {"north": 3000, "south": 50_000}).adapter_start
    assert clearer is not None and clearer.learning_rate > 4 * start.learning_rate
    head = forecast_study(make_study(adapter={"method": "head-only"}), Layout(LAYOUT.tensors[2:]), SIZES)
    assert head.adapter_start is None and "adapter" not in facts(head) and "adapter" in facts(slow)


def test_a_head_moves_as_fast_as_its_noise_allows(make_study: Callable[..., Study]) -> None:
    forecasts = [forecast_study(make_study(privacy={"epsilon": e}), LAYOUT, SIZES) for e in (1.0, 3.0)]
    strict, loose = (forecast.head_start for forecast in forecasts)
    assert strict is not None and loose is not None and strict < loose
    assert loose / strict == pytest.approx(forecasts[0].noise_multiplier / forecasts[1].noise_multiplier)
    assert f"learning_rate {strict:.2g}" in facts(forecasts[0])["head"]
    slow = forecast_study(make_study(training={"learning_rate": 0.5}), LAYOUT, SIZES)
    assert slow.head_start == pytest.approx(forecast_study(make_study(), LAYOUT, SIZES).head_start)
    stars = {"kind": "sequence-classification", "problem": "rating", "rating_range": [1, 5], "labels": []}
    rating = forecast_study(make_study(task=stars), LAYOUT, SIZES)
    assert rating.head_start is None and "head" not in facts(rating)


def test_a_cohort_is_as_noisy_as_the_nodes_it_asks(make_study: Callable[..., Study]) -> None:
    some = forecast_study(make_study(federation={"cohort": 2}), LAYOUT, dict.fromkeys(map(str, range(8)), 300))
    two = forecast_study(make_study(), LAYOUT, {"a": 300, "b": 300})
    assert some.ratio == pytest.approx(two.ratio) and some.asked_per_round == 2 and len(some.nodes) == 8
    assert some.epsilon_by_round == two.epsilon_by_round


@pytest.mark.parametrize("text", ["", "many", "3700,", "0", "-5", "3.5"])
def test_sizes_are_whole_numbers(text: str) -> None:
    with pytest.raises(SettingsError, match="--sizes"):
        read_sizes(text)


def test_a_scenario_is_read_as_the_study_in_it(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    study = toml(make_study(), tmp_path / "study.toml")
    (tmp_path / "scenario.toml").write_text(study.read_text() + '[simulation.data]\nsource = "nowhere.csv"\n')
    assert load_study_of(tmp_path / "scenario.toml").sha256 == load_study_of(study).sha256


def toml(study: Study, path: Path, more: str = "") -> Path:
    """A study file of what differs from the defaults."""
    path.write_text(
        f'[study]\nname = "test"\n[model]\nsource = "{study.model.source}"\n'
        '[task]\nkind = "sequence-classification"\nlabels = ["no", "yes"]\nmax_length = 24\n'
        f"[federation]\nrounds = 3\nsmallest_declared_size = 10\n[training]\nlocal_steps = 3\n{more}"
    )
    return path


def test_shared_noise_is_forecast_as_the_nodes_share_it(make_study: Callable[..., Study]) -> None:
    """Thirty nodes as quiet as one place with all their records, but for sqrt(n / h)."""
    sizes = {f"site-{number}": 230 for number in range(30)}
    local = {"rounds": 48, "typical_size": 230}

    def ratio(federation: dict[str, object], nodes: dict[str, int]) -> float:
        return forecast_study(make_study(federation=federation, training={"local_steps": 1}), LAYOUT, nodes).ratio

    shared, alone = ratio(local | {"secure_sum": "shared"}, sizes), ratio(local, sizes)
    pooled = ratio({"rounds": 48}, {"one place": 6900})
    assert shared / alone == pytest.approx(21**0.5, rel=0.01), "h = 24 - 3"
    assert pooled / shared == pytest.approx((30 / 21) ** 0.5, rel=0.01)
    with pytest.raises(SettingsError, match="at least 3 nodes"):
        ratio(local | {"secure_sum": "shared"}, {"one": 230, "two": 230})
    study = make_study(federation=local | {"secure_sum": "shared"}, training={"local_steps": 1})
    forecast = forecast_study(study, LAYOUT, sizes)
    assert "if all others do, practically no protection" in warnings(forecast)[0]
    assert forecast.gain_of_shared_noise == pytest.approx(21**0.5)
    assert warnings(forecast)[1].endswith("No node would be lost by itself.") and not forecast.lost_alone
    assert forecast.bytes_up_per_round == 2 * forecast.bytes_down_per_round and not any(
        node.rounds_rejected for node in forecast.nodes
    )


def test_a_plan_with_shared_noise_says_which_sites_would_be_lost_without_it(make_study: Callable[..., Study]) -> None:
    federation = {"rounds": 48, "typical_size": 60, "secure_sum": "shared"}

    def planned(small: int, large: int) -> StudyForecast:
        sizes = {f"small {number}": 40 for number in range(small)} | {f"large {number}": 900 for number in range(large)}
        study = make_study(federation=federation, training={"local_steps": 1}, privacy={"epsilon": 1.0})
        return forecast_study(study, Layout(LAYOUT.tensors[2:]), sizes)

    some, every = planned(9, 1), planned(10, 0)
    assert some.lost_alone == [f"small {number}" for number in range(9)]
    assert "9 nodes (small 0, small 1, small 2, small 3, small 4 and 4 more) would be lost" in warnings(some)[1]
    assert "All 10 nodes would be lost" in warnings(every)[1] and every.ratio > 1
    local = make_study(federation=federation | {"secure_sum": None}, training={"local_steps": 1})
    assert forecast_study(local, LAYOUT, {"one": 60, "two": 60}).gain_of_shared_noise is None, "fewer than three"
