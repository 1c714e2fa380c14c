"""The quality benchmark: its scenarios, and from finished runs to figures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.errors import SettingsError
from simulations.benchmarks.quality.__main__ import _plain, run
from simulations.benchmarks.quality.figures import gains, interval, rows
from simulations.benchmarks.quality.plot import page
from simulations.benchmarks.quality.recipe import as_planned
from simulations.benchmarks.quality.sets import EPSILONS, SETS, SHORT, Case, cases
from simulations.results.result import ArmResult, Quality, Result, WorstSite


def arm(value: float, *, private: bool = True, epsilon: float | None = 3.0) -> ArmResult:
    quality = Quality(
        metric="accuracy",
        higher_is_better=True,
        value=value,
        metrics={"accuracy": value},
        per_site={"a": value, "b": value - 0.1},
        worst_site=WorstSite(site="b", value=value - 0.1),
    )
    spent = epsilon if private else None
    return ArmResult(
        title="t", private=private, epsilon=spent, rows=9, sampling_rate=0.1, steps=4, seconds=1.0, quality=quality
    )


def result(**values: float) -> Result:
    arms = {
        name.replace("_", "-"): arm(value, private="without" not in name, epsilon=None if name == "majority" else 3.0)
        for name, value in values.items()
    }
    return Result.model_construct(arms=arms, final=arms["federated"].quality)


@pytest.fixture
def found() -> dict[Case, Result]:
    first = Case("vader", 3.0, 1, ())
    return {
        first: result(majority=0.5, head_federated=0.78, federated=0.80, head_without_privacy=0.8, without_privacy=0.9),
        replace(first, seed=2): result(majority=0.5, head_federated=0.80, federated=0.81),
    }


def test_every_set_is_a_scenario_and_references_are_run_once_per_seed() -> None:
    wanted = cases(SETS, EPSILONS, 2, short=False)
    assert len(wanted) == 2 * len(SETS) * len(EPSILONS)
    for case in wanted:
        scenario = case.scenario()
        assert (scenario.privacy.epsilon, scenario.simulation.seed) == (case.epsilon, case.seed)
        assert ("without-privacy" in scenario.simulation.arms) == (case.epsilon == max(EPSILONS))
    assert len({case.folder(Path("root")) for case in wanted}) == len(wanted)
    with pytest.raises(SettingsError, match="'nothing'"):
        cases(("nothing",), EPSILONS, 1, short=True)


@pytest.mark.integration
def test_a_head_is_whitened_where_the_plan_says_that_noise_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("vader", 8.0, 1, SHORT)
    plain = as_planned(case)
    monkeypatch.setattr("server.forecast.whitening.STANDS_OUT", 1000.0)
    whitened = as_planned(case)
    assert whitened.training.whitening and not plain.training.whitening
    assert whitened.training.learning_rate > plain.training.learning_rate


@pytest.mark.integration
def test_an_adapter_moves_as_far_as_the_plan_says_at_each_epsilon_and_unequal_sites_have_a_typical_size() -> None:
    strict, loose = (as_planned(Case("vader", epsilon, 1, SHORT)) for epsilon in (1.0, 8.0))
    assert strict.training.adapter_learning_rate < loose.training.adapter_learning_rate < 16
    assert 1 > (strict.privacy.head_share or 0) > (loose.privacy.head_share or 0) >= 0.8
    assert strict.federation.typical_size == loose.federation.typical_size == 1800
    assert (strict.privacy.epsilon, strict.simulation.arms) == (1.0, SHORT)


def test_a_run_that_had_more_arms_serves_for_fewer(tmp_path: Path) -> None:
    short = Case("vader", 3.0, 1, SHORT)
    assert short.or_finished(tmp_path) == short
    (whole,) = cases(("vader",), (3.0,), 1, short=False)
    whole.folder(tmp_path).mkdir(parents=True)
    assert short.or_finished(tmp_path) == short, "one that is not finished does not"
    (whole.folder(tmp_path) / "result.json").write_text("{}")
    assert short.or_finished(tmp_path) == whole.or_finished(tmp_path) == whole
    assert replace(short, seed=2).or_finished(tmp_path) == replace(short, seed=2)


def test_figures_are_of_the_arms_that_were_asked_for_and_of_the_scenario_as_it_is(
    found: dict[Case, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.benchmarks.quality.__main__.as_planned", Case.scenario)
    monkeypatch.setattr("simulations.benchmarks.quality.__main__.data_path", lambda *_: tmp_path)
    monkeypatch.setattr("simulations.run.read_result", lambda _path: next(iter(found.values())))
    (whole,) = cases(("vader",), (3.0,), 1, short=False)
    folder = whole.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    (folder / "scenario.json").write_text(whole.scenario().model_dump_json(indent=1, exclude={"performance"}))
    pair = {"head-federated", "federated"}  # these results have no arm of a single site
    assert set(run(replace(whole, arms=SHORT), tmp_path).arms) == pair
    assert set(run(whole, tmp_path).arms) == {"majority", *pair, "head-without-privacy", "without-privacy"}
    (folder / "scenario.json").write_text("{}")
    with pytest.raises(SettingsError, match="got a changed one"):
        run(replace(whole, arms=SHORT), tmp_path)


def test_figures_without_privacy_and_of_one_seed_are_json(found: dict[Case, Result]) -> None:
    (one,) = [case for case in found if case.seed == 1][:1]
    told = [_plain(row) for row in [*rows({one: found[one]}), *gains({one: found[one]})]]
    assert json.loads(json.dumps(told, allow_nan=False)) == told and any(row.get("low", 0) is None for row in told)


def test_rows_are_means_over_seeds_by_epsilon(found: dict[Case, Result]) -> None:
    by_arm = {(row.epsilon, round(row.mean, 4)): row for row in rows(found)}
    assert set(by_arm) == {(0.0, 0.5), (3.0, 0.79), (3.0, 0.805), (math.inf, 0.8), (math.inf, 0.9)}
    assert by_arm[3.0, 0.79].seeds == 2 and by_arm[3.0, 0.79].deviation == pytest.approx(np.std([0.78, 0.8], ddof=1))
    assert by_arm[3.0, 0.79].worst_site == pytest.approx(0.69)


def test_what_lora_adds_is_paired_by_seed(found: dict[Case, Result]) -> None:
    private, reference = gains(found)
    assert (private.epsilon, private.seeds) == (3.0, 2) and private.points == pytest.approx(1.5)
    # two values 2.0 and 1.0: Student's t with one degree of freedom, 12.706 x 0.7071 / sqrt(2)
    assert private.low == pytest.approx(1.5 - 12.7062 * 0.5, abs=1e-3)
    assert reference.epsilon == math.inf and reference.points == pytest.approx(10) and math.isnan(reference.low)


def test_the_largest_site_alone_is_a_pair_of_its_own(found: dict[Case, Result]) -> None:
    some = {
        case: one.model_copy(update={"arms": {**one.arms, "single-site:a": arm(0.7)}})
        for case, one in found.items()
        if "federated" in one.arms
    }
    by_arm = {(gain.beside, gain.epsilon): gain for gain in gains(some)}
    alone = by_arm["largest site alone", 3.0]
    ours = [one.arms["federated"].quality.value for one in some.values()]
    assert alone.points == pytest.approx(100 * (np.mean(ours) - 0.7)) and alone.seeds == len(ours)
    assert by_arm["head alone", 3.0].points == pytest.approx(1.5)


def test_interval_is_students() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0 and high - mean == pytest.approx(mean - low)
    assert mean - low == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5), abs=1e-3)


def test_page_draws_every_set_and_needs_no_network(found: dict[Case, Result]) -> None:
    drawn = page(rows(found), gains(found))
    assert "vader: accuracy of every arm" in drawn and drawn.count("<svg") >= 2
    assert "src=" not in drawn and "<script" not in drawn
