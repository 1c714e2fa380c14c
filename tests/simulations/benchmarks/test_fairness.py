"""The fairness benchmark: its scenarios, and from finished runs to rows and a page."""

from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.evidence.facts import Interval
from simulations.benchmarks.fairness import cases as cases_module
from simulations.benchmarks.fairness.cases import EPSILONS, SETS, Case, Suggested, cases
from simulations.benchmarks.fairness.gaps import rows
from simulations.benchmarks.fairness.page import cells, gap_cells, gap_picture, page, picture, written
from simulations.experiment.scenario import load
from simulations.results.result import ArmResult, Effect, Fairness, Gap, Quality, Result, Subgroup, WorstSite


def arm(gap: float, *, plain: float | None = None) -> ArmResult:
    """An arm with a gap in accuracy; with privacy, beside the gap that there is without."""
    quality = Quality(
        metric="accuracy",
        higher_is_better=True,
        value=0.8,
        metrics={},
        per_site={},
        worst_site=WorstSite(site="a", value=0.7),
    )
    change = None if plain is None else gap - plain
    effect = None if change is None else Effect(value=change, low=change - 0.03, high=change + 0.03)
    people = {
        name: Subgroup(records=units, units=units, rates={"accuracy": rate}, effects=effects)
        for name, units, rate, effects in (
            ("<b>men", 900, 0.8, {} if change is None else {"accuracy": Effect(value=0.0, low=-0.01, high=0.01)}),
            ("women", 90, 0.8 - gap, {} if change is None else {"accuracy": Effect(value=-change, low=-1, high=1)}),
            ("few", 5, 0.0, {}),
        )
    }
    gaps = {"accuracy": Gap(value=gap, low=gap - 0.05, high=gap + 0.05, by_chance=0.02, effect=effect)}
    return ArmResult(
        title="t",
        private=plain is not None,
        epsilon=None,
        rows=9,
        sampling_rate=0.1,
        steps=4,
        seconds=1.0,
        quality=quality,
        fairness={"sex": Fairness(subgroups=people, gaps=gaps)},
    )


def results(*seeds: int) -> dict[Case, Result]:
    return {
        Case("adult", epsilon, seed): Result.model_construct(
            arms={"federated": arm(gap + seed / 100, plain=0.1), "without-privacy": arm(0.1)}
        )
        for epsilon, gap in ((1.0, 0.3), (8.0, 0.15))
        for seed in seeds
    }


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_a_scenario_that_compares_subgroups_of_people(name: str) -> None:
    scenario = load(Case(name, 1.0, 1).path)
    assert scenario.simulation.data.subgroups and scenario.privacy.unit in ("person", "pupil")
    assert {"federated", "without-privacy"} == set(scenario.simulation.arms)


def test_runs_have_folders_of_their_own_and_unknown_sets_are_refused() -> None:
    wanted = cases(SETS, EPSILONS, 2)
    assert len({case.folder(Path("root")) for case in wanted}) == len(wanted) == 2 * len(SETS) * len(EPSILONS)
    with pytest.raises(SettingsError, match="'nothing'"):
        cases(("nothing",), EPSILONS, 1)


def test_training_without_privacy_is_the_same_at_every_epsilon_and_people_are_under_every_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = ["simulation.seeds.split=1", "simulation.seeds.holdout=1"]
    rates = {1.0: 5.0, 3.0: 12.0, 8.0: 30.0}
    monkeypatch.setattr(
        cases_module,
        "suggested",
        lambda _name, epsilon: Suggested([*split, f"privacy.epsilon={epsilon}"], rates[epsilon]),
    )
    scenarios = [Case("compas", epsilon, seed).scenario() for epsilon in rates for seed in (1, 2)]
    assert [one.training.learning_rate for one in scenarios] == [5, 5, 12, 12, 30, 30]
    products = [one.simulation.noiseless_factor * one.training.learning_rate for one in scenarios]
    assert products == pytest.approx([90] * 6)
    assert {(one.simulation.seed_of("holdout"), one.simulation.seed_of("split")) for one in scenarios} == {(1, 1)}
    assert {one.simulation.seed_of("noise") for one in scenarios} == {1, 2}


def test_a_figure_is_a_mean_over_seeds_and_its_interval_is_over_people_and_seeds() -> None:
    made = rows(results(1, 3))
    gaps = [row for row in made if not row.subgroup]
    assert [(row.epsilon, row.seeds, row.people) for row in gaps] == [(1.0, 2, 90), (8.0, 2, 90)]
    assert (gaps[0].private, gaps[0].without, gaps[0].effect.value) == pytest.approx((32.0, 10.0, 22.0))
    # of people 3 points; of two seeds 12.706 times 1.414 / 1.414
    half = (3**2 + 12.706**2) ** 0.5
    assert (gaps[0].effect.low, gaps[0].effect.high) == pytest.approx((22 - half, 22 + half), abs=1e-2)
    assert {row.subgroup for row in made} == {"", "<b>men", "women"}, "a subgroup of five people is left out"
    (alone,) = [row for row in rows(results(1)) if not row.subgroup and row.epsilon == 1]
    assert (alone.effect.low, alone.effect.high) == pytest.approx((18.0, 24.0)), "one seed: over people alone"


def test_page_and_pictures_show_every_row_and_escape_what_comes_from_the_data() -> None:
    made = rows(results(1, 2))
    drawn, own = page(made), picture("adult", made)
    assert all(cell in drawn for row in made for cell in (cells(row) if row.subgroup else gap_cells(row))[4:])
    assert "<b>men" not in drawn and "https" not in drawn and len(drawn) < 300_000
    assert own.svg.count("<rect") == 4 and "women (90) ε 8" in own.svg and "women (90)" in own.says


def test_gaps_are_drawn_one_bar_for_each_epsilon() -> None:
    made = rows(results(1, 2))
    drawn = gap_picture("adult", made)
    gaps = [row for row in made if not row.subgroup and row.rate == "accuracy"]
    assert [f">accuracy, {row.column} ε {row.epsilon:g}<" in drawn.svg for row in gaps] == [True] * len(gaps)
    assert all(f">{written(row.effect)}<" in drawn.svg for row in gaps) and len(gaps) == 2


def test_a_long_name_is_cut_and_not_its_epsilon() -> None:
    named = [replace(row, subgroup="a name of many words and more") for row in rows(results(1)) if row.subgroup]
    assert ">a name of many wo… (90) ε 8<" in picture("adult", named).svg


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert written(Interval(value=-0.04, low=-2.75, high=0.04)) == "+0.0 (-2.8 to +0.0)"
