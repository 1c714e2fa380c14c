"""The fairness benchmark: its scenarios, and from finished runs to rows and a page."""

import math
from pathlib import Path

import pytest

from shared.errors import SettingsError
from simulations.benchmarks.fairness.cases import EPSILONS, SETS, Case, cases
from simulations.benchmarks.fairness.gaps import rows
from simulations.benchmarks.fairness.page import cells, page
from simulations.experiment.scenario import load
from simulations.results.result import ArmResult, Fairness, Gap, Quality, Result, Subgroup, WorstSite


def arm(gap: float, *, private: bool = True) -> ArmResult:
    quality = Quality(
        metric="accuracy",
        higher_is_better=True,
        value=0.8,
        metrics={},
        per_site={},
        worst_site=WorstSite(site="a", value=0.7),
    )
    people = {
        name: Subgroup(records=units, units=units, rates={"accuracy": rate})
        for name, units, rate in (("<b>men", 900, 0.8), ("women", 90, 0.8 - gap), ("few", 5, 0.0))
    }
    gaps = {"accuracy": Gap(value=gap, low=gap - 0.05, high=gap + 0.05, by_chance=0.02)}
    return ArmResult(
        title="t",
        private=private,
        epsilon=None,
        rows=9,
        sampling_rate=0.1,
        steps=4,
        seconds=1.0,
        quality=quality,
        fairness={"sex": Fairness(subgroups=people, gaps=gaps)},
    )


def results() -> dict[Case, Result]:
    return {
        Case("adult", epsilon, seed): Result.model_construct(
            arms={"federated": arm(gap + seed / 100), "without-privacy": arm(0.1, private=False)}
        )
        for epsilon, gap in ((1.0, 0.3), (8.0, 0.15))
        for seed in (1, 2)
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


def test_gaps_are_averaged_over_seeds_and_without_privacy_stands_last() -> None:
    made = rows(results())
    assert [(row.epsilon, row.seeds) for row in made] == [(1.0, 2), (8.0, 2), (math.inf, 2)]
    first = made[0]
    assert (first.points, first.low, first.high) == pytest.approx((31.5, 26.0, 37.0))
    assert first.lowest == "women (90)", "of subgroups that are large enough"


def test_the_page_shows_every_row_and_escapes_what_comes_from_the_data() -> None:
    made = rows(results())
    drawn = page(made)
    assert drawn.count("<circle") == len(made) == drawn.count("<tr><td>")
    assert all(cell in drawn for row in made for cell in cells(row)) and "<b>men" not in drawn
    assert "http" not in drawn and len(drawn) < 300_000
