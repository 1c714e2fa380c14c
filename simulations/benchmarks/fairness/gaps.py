"""Turn finished runs into rows: each gap between subgroups by set, column and epsilon, the mean over seeds."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from simulations.benchmarks.fairness.cases import Case
from simulations.results.result import ArmResult, Result
from simulations.results.subgroups import FEWEST


@dataclass(frozen=True)
class Row:
    """One rate's gap between the subgroups of a column."""

    name: str
    column: str
    rate: str
    epsilon: float
    """Infinite without privacy."""
    points: float
    """Largest rate minus smallest, in hundredths; of several seeds the mean."""
    low: float
    """Lower end of its 95 % interval over units; of several seeds the lowest."""
    high: float
    """Upper end; of several seeds the highest."""
    by_chance: float
    """What half of all draws would show if subgroups were treated alike."""
    accuracy: float
    """Of all held-out records, in hundredths."""
    lowest: str
    """The subgroup with the lowest rate, at the first seed, and its units."""
    seeds: int


def rows(results: Mapping[Case, Result]) -> list[Row]:
    """Return all rows, by set, column, rate and epsilon; those without privacy once, last."""
    arms: dict[tuple[str, float], dict[int, ArmResult]] = {}
    for case, result in results.items():
        arms.setdefault((case.name, case.epsilon), {})[case.seed] = result.arms["federated"]
        if "without-privacy" in result.arms:
            arms.setdefault((case.name, math.inf), {}).setdefault(case.seed, result.arms["without-privacy"])
    made = [
        _row(name, column, rate, epsilon, list(by_seed.values()))
        for (name, epsilon), by_seed in arms.items()
        for column, fairness in next(iter(by_seed.values())).fairness.items()
        for rate in fairness.gaps
    ]
    return sorted(made, key=lambda row: (row.name, row.column, row.rate, row.epsilon))


def _row(name: str, column: str, rate: str, epsilon: float, arms: list[ArmResult]) -> Row:
    gaps = [arm.fairness[column].gaps[rate] for arm in arms if rate in arm.fairness[column].gaps]
    first = arms[0].fairness[column].subgroups
    large = {key: one for key, one in first.items() if one.units >= FEWEST}
    lowest = min(large, key=lambda key: large[key].rates[rate])
    return Row(
        name=name,
        column=column,
        rate=rate,
        epsilon=epsilon,
        points=100 * statistics.mean(gap.value for gap in gaps),
        low=100 * min(gap.low for gap in gaps),
        high=100 * max(gap.high for gap in gaps),
        by_chance=100 * statistics.mean(gap.by_chance for gap in gaps),
        accuracy=100 * statistics.mean(arm.quality.value for arm in arms),
        lowest=f"{lowest} ({first[lowest].units:,})",
        seeds=len(gaps),
    )
