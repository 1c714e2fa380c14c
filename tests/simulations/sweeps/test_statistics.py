"""Intervals and tests over seeds, against scipy and worked examples."""

import math

import numpy as np
import pytest
from scipy import stats

from simulations.results.report import minus
from simulations.results.result import Result
from simulations.sweeps.cells import Cell
from simulations.sweeps.statistics import holm, paired, rows_of
from tests.support.results import result


def test_a_paired_test_is_scipys() -> None:
    generator = np.random.default_rng(3)
    ours, theirs = generator.normal(0.7, 0.02, 6), generator.normal(0.68, 0.02, 6)
    oracle, made = stats.ttest_rel(ours, theirs), paired([*(ours - theirs)])
    assert made.p == pytest.approx(oracle.pvalue) and made.minus.value == pytest.approx(float((ours - theirs).mean()))
    interval = oracle.confidence_interval(0.95)
    assert (made.minus.low, made.minus.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, 0.1, 0.1], [0.1, math.nan], [0.83 - 0.80, 0.80 - 0.77]])
def test_what_cannot_be_tested_has_no_p(differences: list[float]) -> None:
    assert paired(differences).p is None and paired(differences).seeds == len(differences)


def test_rounding_is_no_spread() -> None:
    values = [0.7 + 0.1, 0.8, 0.1 * 3, 0.3]
    differences = [values[0] - values[1], values[2] - values[3], 0.0]
    assert len(set(differences)) > 1 and paired(differences).p is not None
    made = paired(differences, of=values)
    assert (made.p, made.minus.low, made.minus.high) == (None, None, None) and made.seeds == 3
    small = paired([1e-9, 2e-9, 4e-9], of=[1e-3])
    assert small.p is not None and small.minus.low is not None, "what differs by more than rounding is tested"


def test_arms_that_are_equally_good_at_each_seed_have_no_p() -> None:
    """Accuracies of 0.1 + 0.2 and 0.3 are the same one."""
    runs = dict[Cell, Result]()
    for seed, (ours, other) in enumerate([(0.1 + 0.2, 0.3), (0.7, 0.1 + 0.6), (0.5, 0.5)]):
        runs[Cell((), (("simulation.seed", str(seed)),))] = result(ours, without_privacy=other, seed=seed)
    (row,) = [row for row in rows_of(runs) if row.arm == "without-privacy"]
    assert row.ahead is not None and row.ahead.p is None and row.ahead.minus.low is None
    (majority,) = [row for row in rows_of(runs) if row.arm == "majority"]
    assert majority.quality.low is None and majority.ahead is not None and majority.ahead.p is not None
    cost = minus([*runs.values()], "without-privacy")
    assert cost is not None and cost.low is None


def test_holm_bounds_a_false_alarm_among_all() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_under_no_difference_a_test_alarms_as_often_as_it_says() -> None:
    """Two-sided: 1,000 draws, 5 % alarms expected; outside 2.6 to 7.8 % by chance in fewer than one of 1,000 seeds."""
    generator = np.random.default_rng(20)
    alarms = sum((paired([*generator.normal(0, 1, 5)]).p or 0) < 0.05 for _ in range(1000))
    assert 26 <= alarms <= 78
    found = sum((paired([*generator.normal(3, 1, 5)]).p or 0) < 0.05 for _ in range(200))
    assert found > 190, "what is there is found"
