"""Turn finished runs into figures: means over seeds, and what LoRA adds to the head alone, seed by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from simulations.benchmarks.quality.sets import Case
from simulations.results.result import Result

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """Figures of one arm on one set at one epsilon, over seeds."""

    name: str
    arm: str
    epsilon: float
    """Infinite without privacy."""
    metric: str
    mean: float
    """Over all held-out records, mean over seeds."""
    deviation: float
    """Standard deviation over seeds; 0 of a single one."""
    worst_site: float
    """Of the worst site, mean over seeds."""
    seeds: int


@dataclass(frozen=True)
class Gain:
    """The paired difference between the study's own arm and another: same epsilon, seeds and rows."""

    name: str
    beside: str
    """The other arm: the head alone, or the largest site alone."""
    epsilon: float
    points: float
    """Mean difference of the main metric, in hundredths."""
    low: float
    """Lower end of the two-sided interval of 95 % by Student's t; not a number for a single seed."""
    high: float
    """Its upper end."""
    seeds: int


def rows(results: Mapping[Case, Result]) -> list[Row]:
    """Return one row for each set, epsilon and arm."""
    grouped: dict[tuple[str, str, float], list[tuple[float, float]]] = {}
    titles: dict[str, str] = {}
    metrics: dict[str, str] = {}
    for case, result in results.items():
        metrics[case.name] = result.final.metric
        for name, arm in result.arms.items():
            key = "single-site" if name.startswith("single-site") else name
            titles[key] = "largest site alone" if key == "single-site" else arm.title
            unprotected = arm.steps and not arm.private
            epsilon = math.inf if unprotected else 0.0 if arm.epsilon is None else case.epsilon
            values = (arm.quality.value, arm.quality.worst_site.value)
            grouped.setdefault((case.name, key, epsilon), []).append(values)
    return [
        Row(
            name=name,
            arm=titles[arm],
            epsilon=epsilon,
            metric=metrics[name],
            mean=statistics.mean(value for value, _ in values),
            deviation=statistics.stdev(value for value, _ in values) if len(values) > 1 else 0.0,
            worst_site=statistics.mean(worst for _, worst in values),
            seeds=len(values),
        )
        for (name, arm, epsilon), values in sorted(grouped.items(), key=lambda item: (item[0][0], item[0][2]))
    ]


def gains(results: Mapping[Case, Result]) -> list[Gain]:
    """Return the paired differences by set, other arm and epsilon, those without privacy last."""
    pairs: dict[tuple[str, str, float], list[float]] = {}
    for case, result in results.items():
        singles = [name for name in result.arms if name.startswith("single-site")]
        for ours, others, beside, epsilon in (
            ("federated", ["head-federated"], "head alone", case.epsilon),
            ("federated", singles, "largest site alone", case.epsilon),
            ("without-privacy", ["head-without-privacy"], "head alone", math.inf),
        ):
            for other in others:
                if {ours, other} <= set(result.arms):
                    difference = result.arms[ours].quality.value - result.arms[other].quality.value
                    sign = 1 if result.final.higher_is_better else -1
                    pairs.setdefault((case.name, beside, epsilon), []).append(100 * sign * difference)
    return [Gain(*key, *interval(values), len(values)) for key, values in sorted(pairs.items())]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean, and the ends of Student's interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    width = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - float(width), mean + float(width)
