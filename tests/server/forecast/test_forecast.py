"""A plan from public numbers alone; studies whose honest updates would be rejected are found beforehand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.forecast.forecast import forecast_study, read_sizes, read_study
from server.forecast.suggestions import suggest
from server.forecast.text import facts, verdict, warnings
from server.forecast.values import StudyForecast
from shared.adapted_model.adapters import Layout
from shared.errors import BudgetError, SettingsError
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import NoiseSchedule, plan
from shared.privacy.signal_to_noise import Prospect
from shared.study.declaration import Study
from shared.study.sections import Privacy

LAYOUT = Layout((("base.a.lora_B", (32, 8)), ("base.b.lora_B", (32, 8)), ("head.weight", (2, 32)), ("head.bias", (2,))))
SIZES = {"north": 300, "south": 5012, "tiny": 4}


def test_the_plan_is_the_accountants(make_study: Callable[..., Study]) -> None:
    study = make_study()
    found, planned = forecast_study(study, LAYOUT, SIZES), plan(study.privacy, steps=9)
    assert (found.noise_multiplier, found.steps) == (planned.noise_multiplier, 9)
    assert found.epsilon_by_round[1] == epsilon_rdp([planned.release(6)], study.privacy.delta)
    assert found.epsilon_prv is not None and found.epsilon_prv < found.epsilon_by_round[-1] <= study.privacy.epsilon
    assert found.fits and not forecast_study(study, LAYOUT, SIZES, spent_steps=1).fits


def test_nodes_are_planned_by_declared_size_and_small_ones_are_left_out(make_study: Callable[..., Study]) -> None:
    found = forecast_study(make_study(), LAYOUT, SIZES)
    assert [(node.name, node.declared_size) for node in found.nodes] == [("north", 300), ("south", 5000)]
    assert found.nodes[1].expected_batch == found.nodes[1].divisor == pytest.approx(500)
    assert found.left_out == ["tiny"]
    assert found.nodes[0].study_ratio < found.ratio < found.nodes[1].study_ratio
    with pytest.raises(SettingsError, match="smallest_declared_size=10"):
        forecast_study(make_study(), LAYOUT, {"tiny": 4})


def test_bytes_are_those_of_the_trained_entries(make_study: Callable[..., Study]) -> None:
    found = forecast_study(make_study(), LAYOUT, SIZES)
    assert [(part.name, part.dimension) for part in found.parts] == [("head", 66), ("adapter", 512)]
    assert (found.bytes_up_per_round, found.bytes_down_per_round) == (4 * 578, 4 * 578)
    assert found.bytes_total == 2 * 3 * 4 * 578
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
    found = forecast_study(on, Layout((*LAYOUT.tensors, ("head.moments.weight", (32, 32)))), {"a": 50, "b": 50})
    assert found.steps == loud.steps and found.noise_multiplier == loud.noise_multiplier
    # six of nine steps train, so less noise adds up in the head, and a whitened head starts at twice the rate
    assert found.head_start is not None and loud.head_start is not None
    assert 2.2 * loud.head_start < found.head_start < 2.6 * loud.head_start
    assert facts(found)["whitening"].startswith("on; ")
    assert quiet.as_dict()["whitening"]["possible"] and not quiet.as_dict()["typical_size"]["helps"]


def test_a_study_that_cannot_learn_is_told_so_and_every_remedy_helps(make_study: Callable[..., Study]) -> None:
    study, sizes = make_study(privacy={"epsilon": 0.05}), {"north": 300, "south": 300}
    found = forecast_study(study, LAYOUT, sizes)
    said = suggest(study, found)
    assert found.prospect is Prospect.NOTHING and verdict(found, said)[0].startswith("This will not learn")
    needed = float(next(line for line in said if line.startswith("privacy.epsilon")).split()[1])
    more = make_study(privacy={"epsilon": needed})
    assert forecast_study(more, LAYOUT, sizes).prospect is Prospect.ENOUGH
    less = make_study(privacy={"epsilon": 0.9 * needed})
    assert forecast_study(less, LAYOUT, sizes).prospect is not Prospect.ENOUGH
    times = float(said[0].split()[1])
    assert forecast_study(study, LAYOUT, dict.fromkeys("ab", round(330 * times))).prospect is Prospect.ENOUGH


def test_one_small_site_among_large_ones_is_named(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 0.1})
    said = suggest(study, forecast_study(study, LAYOUT, {"a": 400, "b": 400, "c": 10}))
    assert any(line.startswith("federation.smallest_declared_size: 400 leaves 2 sites") for line in said)
    alone = suggest(study, forecast_study(study, LAYOUT, {"a": 400, "c": 10}))
    assert not any("leaves" in line for line in alone), "one site is no quorum"


def test_what_helps_and_is_not_enough_says_so(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 0.02})
    said = suggest(study, forecast_study(study, LAYOUT, {"a": 400, "b": 400, "c": 100}))
    found = [line for line in said if "leaves 2 sites" in line or "gives" in line]
    assert found and all("not enough by itself" in line for line in found)


def test_a_large_site_is_told_that_it_would_do_better_alone(make_study: Callable[..., Study]) -> None:
    def said(**sizes: int) -> list[str]:
        study = make_study(privacy={"epsilon": 8.0})
        typical = forecast_study(study, LAYOUT, sizes).typical_size.mean
        found = forecast_study(
            make_study(privacy={"epsilon": 8.0}, federation={"typical_size": typical}), LAYOUT, sizes
        )
        assert found.prospect is Prospect.ENOUGH
        return [line for line in warnings(found) if "times the ratio" in line]

    assert said(a=9000, b=9000) == said(a=9000, b=6000) == []
    (line,) = said(large=9000, small=500, smaller=300)
    assert line.startswith("large alone has 1.6 times the ratio of the mean of all")
    assert line.endswith("fewer than federation.quorum: they may do better without this study.")
    (line,) = said(large=9000, larger=9500, **{f"small {number}": 900 for number in range(6)})
    assert line.startswith("larger, large alone have")
    assert line.endswith("set federation.smallest_declared_size to 9000.")


def test_a_typical_size_is_suggested_where_sizes_differ_and_gains_what_the_plan_says(
    make_study: Callable[..., Study],
) -> None:
    sizes = {"large": 9000, "small": 2000}
    own = forecast_study(make_study(privacy={"epsilon": 8.0}), LAYOUT, sizes)
    assert own.typical_size.mean == 5500
    assert any("with federation.typical_size = 5500" in line and "1.99 times" in line for line in warnings(own))
    typical = forecast_study(
        make_study(privacy={"epsilon": 8.0}, federation={"typical_size": own.typical_size.mean}), LAYOUT, sizes
    )
    assert typical.ratio == pytest.approx(own.ratio * own.typical_size.gain) and own.typical_size.gain > 1.9
    assert typical.typical_size.gain == pytest.approx(1) and not warnings(typical)
    assert [node.divisor for node in typical.nodes] == pytest.approx([550, 550])
    assert [node.study_ratio for node in typical.nodes] == [node.study_ratio for node in own.nodes]
    assert forecast_study(make_study(), LAYOUT, {"a": 300, "b": 300}).typical_size.gain == pytest.approx(1)


@pytest.mark.parametrize(("epsilon", "least", "most"), [(0.5, 1.0, 1.1), (8.0, 1.15, 1.5)])
def test_a_plan_says_what_twice_the_rounds_would_gain(
    make_study: Callable[..., Study], epsilon: float, least: float, most: float
) -> None:
    def planned(rounds: int) -> StudyForecast:
        study = make_study(privacy={"epsilon": epsilon}, federation={"rounds": rounds}, training={"local_steps": 6})
        return forecast_study(study, LAYOUT, SIZES)

    found, longer = planned(10), planned(20)
    assert found.epsilon_by_round[-1] == pytest.approx(longer.epsilon_by_round[-1], rel=0.01)
    assert longer.ratio / found.ratio == pytest.approx(found.gain_of_twice_the_rounds)
    assert found.gain_of_twice_the_rounds is not None and least < found.gain_of_twice_the_rounds < most
    assert facts(found)["twice the rounds"].startswith(f"{found.gain_of_twice_the_rounds:.2f} times that ratio")


def test_a_plan_is_made_also_where_twice_the_rounds_would_need_too_much_noise(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(privacy: Privacy, *, steps: int) -> NoiseSchedule:
        if steps > 9:
            raise BudgetError("Expected a larger epsilon.")
        return plan(privacy, steps=steps)

    monkeypatch.setattr("shared.privacy.study_steps.plan", limited)
    found = forecast_study(make_study(), LAYOUT, SIZES)
    assert found.gain_of_twice_the_rounds is None and "no practical noise" in facts(found)["twice the rounds"]


def test_a_typical_size_is_a_remedy_that_gives_what_it_says(make_study: Callable[..., Study]) -> None:
    study, sizes = make_study(privacy={"epsilon": 0.1}), {"a": 400, "b": 100}
    found = forecast_study(study, LAYOUT, sizes)
    (line,) = [line for line in suggest(study, found) if line.startswith("federation.typical_size: 250 gives")]
    better = forecast_study(make_study(privacy={"epsilon": 0.1}, federation={"typical_size": 250}), LAYOUT, sizes)
    assert float(line.split()[3]) == pytest.approx(better.ratio / found.ratio, abs=0.06)
    assert line.count("not enough by itself") == (better.prospect is not Prospect.ENOUGH)


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
    plans = [forecast_study(make_study(privacy={"epsilon": e}), LAYOUT, SIZES) for e in (1.0, 3.0)]
    strict, loose = (planned.head_start for planned in plans)
    assert strict is not None and loose is not None and strict < loose
    assert loose / strict == pytest.approx(plans[0].noise_multiplier / plans[1].noise_multiplier)
    assert f"learning_rate {strict:.2g}" in facts(plans[0])["head"]
    slow = forecast_study(make_study(training={"learning_rate": 0.5}), LAYOUT, SIZES)
    assert slow.head_start == pytest.approx(forecast_study(make_study(), LAYOUT, SIZES).head_start)
    stars = {"kind": "sequence-classification", "problem": "rating", "rating_range": [1, 5], "labels": []}
    rating = forecast_study(make_study(task=stars), LAYOUT, SIZES)
    assert rating.head_start is None and "head" not in facts(rating)


def test_nothing_needs_a_remedy_where_noise_leaves_room(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 8.0})
    found = forecast_study(study, LAYOUT, {"a": 5000, "b": 5000})
    assert found.prospect is Prospect.ENOUGH and suggest(study, found) == []


def test_a_cohort_is_as_noisy_as_the_nodes_it_asks(make_study: Callable[..., Study]) -> None:
    some = forecast_study(make_study(federation={"cohort": 2}), LAYOUT, dict.fromkeys(map(str, range(8)), 300))
    two = forecast_study(make_study(), LAYOUT, {"a": 300, "b": 300})
    assert some.ratio == pytest.approx(two.ratio) and some.asked_per_round == 2 and len(some.nodes) == 8
    assert some.epsilon_by_round == two.epsilon_by_round


@pytest.mark.parametrize("text", ["", "many", "3700,", "0", "-5", "3.5"])
def test_sizes_are_whole_numbers(text: str) -> None:
    with pytest.raises(SettingsError, match="--sizes"):
        read_sizes(text)


def test_a_scenario_is_planned_as_the_study_in_it(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    study = toml(make_study(), tmp_path / "study.toml")
    (tmp_path / "scenario.toml").write_text(study.read_text() + '[simulation.data]\nsource = "nowhere.csv"\n')
    assert read_study(tmp_path / "scenario.toml").sha256 == read_study(study).sha256


def toml(study: Study, path: Path, more: str = "") -> Path:
    """A study file of what differs from the defaults."""
    path.write_text(
        f'[study]\nname = "test"\n[model]\nsource = "{study.model.source}"\n'
        '[task]\nkind = "sequence-classification"\nlabels = ["no", "yes"]\nmax_length = 24\n'
        f"[federation]\nrounds = 3\nsmallest_declared_size = 10\n[training]\nlocal_steps = 3\n{more}"
    )
    return path
