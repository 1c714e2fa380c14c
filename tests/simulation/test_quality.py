"""The quality benchmark: its scenarios, and from finished runs to figures."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.errors import SettingsError
from simulations.benchmarks.quality.figures import gains, interval, rows
from simulations.benchmarks.quality.plot import page
from simulations.benchmarks.quality.sets import EPSILONS, SETS, Case, cases
from simulations.result import ArmResult, Quality, Result, WorstSite


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


def test_interval_is_students() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0 and high - mean == pytest.approx(mean - low)
    assert mean - low == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5), abs=1e-3)


def test_page_draws_every_set_and_needs_no_network(found: dict[Case, Result]) -> None:
    drawn = page(rows(found), gains(found))
    assert "Plotly.newPlot('set-vader'" in drawn and "Plotly.newPlot('gains'" in drawn
    assert 'src="http' not in drawn
