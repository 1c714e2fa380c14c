"""Paired differences and their intervals, against closed forms and a naive bootstrap."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from shared.study.tasks import SequenceClassification
from shared.tasks.kind import TaskKind
from shared.tasks.registry import task_kind
from simulations.engines.worker import Seen
from simulations.experiment.sites import Groups
from simulations.results.paired import CLOSE, ILL_SUITED, below_twins, differences

KIND = "sequence-classification"
LABELS = task_kind(SequenceClassification(kind=KIND, labels=("a", "b", "c")))
TAGS = task_kind(SequenceClassification(kind=KIND, labels=("a", "b", "c"), problem="multi-label"))
RATING = task_kind(SequenceClassification(kind=KIND, problem="rating", rating_range=(0, 1)))


def guesses(truth: Sequence[Any], right: float, seed: int) -> list[tuple[Any, Any]]:
    """Evidence of an arm that is right with this probability, and else says the next one's answer."""
    generator = np.random.default_rng(seed)
    return [(t if generator.random() < right else truth[i - 1], t) for i, t in enumerate(truth)]


def of_sites(evidence: Sequence[Any]) -> list[Seen]:
    half = len(evidence) // 2
    return [Seen("south", list(evidence[half:])), Seen("north", list(evidence[:half]))]


def naive(kind: TaskKind, ours: Sequence[Any], other: Sequence[Any], draws: int) -> tuple[float, float]:
    """Ends of the interval by the metric itself on every draw."""
    generator, by_draw = np.random.default_rng(0), []
    for _ in range(draws):
        drawn = generator.integers(0, len(ours), len(ours)).tolist()
        values = [kind.metrics([arm[i] for i in drawn])[kind.metric] for arm in (ours, other)]
        by_draw.append(values[0] - values[1])
    low, high = np.percentile(by_draw, (2.5, 97.5))
    return float(low), float(high)


def test_an_accuracys_interval_is_that_of_the_mean_of_paired_differences() -> None:
    truth = np.random.default_rng(1).integers(0, 3, 2000).tolist()
    ours, other = guesses(truth, 0.8, 2), guesses(truth, 0.7, 3)
    one = differences(LABELS, {"federated": of_sites(ours), "head": of_sites(other)})["head"]
    paired = np.array([a == t for a, t in ours], float) - np.array([b == t for b, t in other], float)
    half = 1.96 * paired.std() / math.sqrt(len(truth))
    assert one.value == pytest.approx(paired.mean())
    assert (one.unit, one.units) == ("record", 2000)
    assert one.low == pytest.approx(paired.mean() - half, abs=0.1 * half)
    assert one.high == pytest.approx(paired.mean() + half, abs=0.1 * half)


def test_arms_that_answer_alike_have_no_interval_however_uncertain_each_is() -> None:
    evidence = guesses(np.random.default_rng(1).integers(0, 3, 300).tolist(), 0.6, 2)
    one = differences(LABELS, {"federated": of_sites(evidence), "twin": of_sites(evidence)})["twin"]
    assert (one.value, one.low, one.high) == (0, 0, 0)


def test_a_metric_that_is_no_mean_has_nearly_the_interval_of_the_naive_bootstrap() -> None:
    truth = (np.random.default_rng(1).random((400, 3)) < [0.5, 0.3, 0.15]).astype(int).tolist()
    ours, other = guesses(truth, 0.8, 2), guesses(truth, 0.6, 3)
    one = differences(TAGS, {"federated": of_sites(ours), "head": of_sites(other)})["head"]
    low, high = naive(TAGS, ours, other, 300)
    assert low < one.value < high
    assert one.high - one.low == pytest.approx(high - low, rel=0.3)
    assert (one.low + one.high) / 2 == pytest.approx((low + high) / 2, abs=0.2 * (high - low))


def test_better_is_positive_for_an_error_too() -> None:
    near, far = [(0.5, 0.6)] * 50, [(0.5, 0.9), (0.5, 0.7)] * 25
    better = differences(RATING, {"federated": of_sites(near), "other": of_sites(far)})["other"]
    worse = differences(RATING, {"federated": of_sites(far), "other": of_sites(near)})["other"]
    assert better.value == pytest.approx(0.09) and 0 < better.low < better.high
    assert worse.value == pytest.approx(-0.09) and worse.low < worse.high < 0


@pytest.mark.parametrize("kind", [LABELS, TAGS])
def test_units_are_drawn_whole(kind: TaskKind) -> None:
    """Rows that a person has eight times over make no interval narrower, though there are eight times as many."""
    truth = np.random.default_rng(1).integers(0, 3, 240).tolist()
    truth = truth if kind is LABELS else np.eye(3, dtype=int)[truth].tolist()
    arms = {"federated": guesses(truth, 0.8, 2), "head": guesses(truth, 0.6, 3)}
    single = differences(kind, {name: of_sites(one) for name, one in arms.items()})["head"]
    copied = {name: of_sites([part for part in one for _ in range(8)]) for name, one in arms.items()}
    numbers = np.repeat(np.arange(240), 8)
    groups = Groups("person", {"north": numbers[:960], "south": numbers[960:]})
    grouped = differences(kind, copied, groups)["head"]
    assert (grouped.unit, grouped.units) == ("person", 240)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)
    apart = differences(kind, copied)["head"]
    assert apart.high - apart.low < 0.5 * (single.high - single.low)


def test_the_order_in_which_sites_come_changes_nothing() -> None:
    truth = np.random.default_rng(1).integers(0, 3, 100).tolist()
    arms = {"federated": of_sites(guesses(truth, 0.8, 2)), "head": of_sites(guesses(truth, 0.6, 3))}
    turned = {name: sites[::-1] for name, sites in arms.items()}
    assert (
        differences(LABELS, arms) == differences(LABELS, turned) == differences(LABELS, arms | {"head": turned["head"]})
    )


def test_what_is_not_finite_has_no_interval() -> None:
    one = differences(RATING, {"federated": of_sites([(math.nan, 0.5)] * 4), "other": of_sites([(0.5, 0.5)] * 4)})
    assert all(math.isnan(value) for value in (one["other"].value, one["other"].low, one["other"].high))


def test_a_reference_without_privacy_below_its_private_twin_says_why() -> None:
    truth = np.random.default_rng(1).integers(0, 3, 400).tolist()
    good, close, bad = (of_sites(guesses(truth, right, 5)) for right in (0.8, 0.795, 0.5))
    heads = {"head-federated": close, "head-without-privacy": good}
    assert below_twins(LABELS, {"federated": good, "without-privacy": bad} | heads) == {"without-privacy": ILL_SUITED}
    assert below_twins(LABELS, {"federated": good, "without-privacy": close}) == {"without-privacy": CLOSE}
    assert below_twins(LABELS, {"federated": bad, "without-privacy": good}) == {}
    assert below_twins(LABELS, {"without-privacy": bad}) == {}


def test_an_errors_reference_is_below_its_twin_where_its_error_is_larger() -> None:
    near, far = of_sites([(0.5, 0.6)] * 50), of_sites([(0.5, 0.9), (0.5, 0.7)] * 25)
    assert below_twins(RATING, {"federated": near, "without-privacy": far}) == {"without-privacy": ILL_SUITED}
    assert below_twins(RATING, {"federated": far, "without-privacy": near}) == {}
