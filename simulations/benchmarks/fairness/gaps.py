"""Turn finished runs into rows: what privacy did to each subgroup, and to the gap between them, by set and epsilon.

Every run has the same held-out people and its own training without privacy. A figure is the mean over seeds. Its
interval covers other people and other noise: on each side, the square of its length is that of the mean interval over
people plus that of Student's t over seeds.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.evidence.facts import Interval
from simulations.benchmarks.fairness.cases import Case
from simulations.results.report import OURS, UNPROTECTED, over_seeds
from simulations.results.result import ArmResult, Effect, Gap, Result

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Row:
    """One rate of one subgroup, or its gap between the subgroups of a column, at one epsilon; all in points."""

    name: str
    column: str
    subgroup: str
    """Empty for a gap: the largest rate of a subgroup minus the smallest."""
    people: int
    """Held out; of a gap, those of the smallest subgroup in it."""
    rate: str
    epsilon: float
    private: float
    without: float
    """The same training without privacy."""
    effect: Interval
    """The first less the second."""
    ends: tuple[float, float] | None = None
    """Of a gap: its own interval, with privacy."""
    by_chance: float | None = None
    """Of a gap: what half of all draws would show if subgroups were treated alike."""
    seeds: int = 1


def rows(results: Mapping[Case, Result]) -> list[Row]:
    """Return all rows, by set, column, rate and epsilon, gaps before subgroups."""
    pairs: dict[tuple[str, float], list[tuple[ArmResult, ArmResult]]] = {}
    for case, result in results.items():
        pairs.setdefault((case.name, case.epsilon), []).append((result.arms[OURS], result.arms[UNPROTECTED]))
    made = [row for (name, epsilon), arms in pairs.items() for row in _rows(name, epsilon, arms)]
    return sorted(made, key=lambda row: (row.name, row.column, row.rate, row.subgroup, row.epsilon))


def _rows(name: str, epsilon: float, arms: Sequence[tuple[ArmResult, ArmResult]]) -> Iterator[Row]:
    for column, first in arms[0][0].fairness.items():
        of_seeds = [(ours.fairness[column], plain.fairness[column]) for ours, plain in arms]
        compared = {key: one for key, one in first.subgroups.items() if one.effects}
        for rate, gap in first.gaps.items():
            gaps = [(ours.gaps[rate], plain.gaps[rate]) for ours, plain in of_seeds if rate in ours.gaps]
            effects = [ours.effect for ours, _ in gaps if ours.effect is not None]
            if gap.effect is None or len(effects) < len(arms):
                continue
            own = _over_people_and_seeds([ours for ours, _ in gaps])
            yield Row(
                name,
                column,
                "",
                min(one.units for one in compared.values()),
                rate,
                epsilon,
                own.value,
                100 * statistics.fmean(plain.value for _, plain in gaps),
                _over_people_and_seeds(effects),
                ends=(max(0.0, own.low or 0.0), own.high or 0.0),
                by_chance=100 * statistics.fmean(ours.by_chance for ours, _ in gaps),
                seeds=len(arms),
            )
        for subgroup, one in compared.items():
            for rate in one.effects:
                sides = [(ours.subgroups[subgroup], plain.subgroups[subgroup]) for ours, plain in of_seeds]
                yield Row(
                    name,
                    column,
                    subgroup,
                    one.units,
                    rate,
                    epsilon,
                    100 * statistics.fmean(ours.rates[rate] for ours, _ in sides),
                    100 * statistics.fmean(plain.rates[rate] for _, plain in sides),
                    _over_people_and_seeds([ours.effects[rate] for ours, _ in sides]),
                    seeds=len(arms),
                )


def _over_people_and_seeds(figures: Sequence[Effect | Gap]) -> Interval:
    """Return the mean in points, with an interval that covers other people and other noise."""
    mean = over_seeds([figure.value for figure in figures])
    noise = 0.0 if mean.high is None else mean.high - mean.value
    low = math.hypot(statistics.fmean(figure.value - figure.low for figure in figures), noise)
    high = math.hypot(statistics.fmean(figure.high - figure.value for figure in figures), noise)
    return Interval(value=100 * mean.value, low=100 * (mean.value - low), high=100 * (mean.value + high))
