"""Compare arms on the same held-out records: their differences, each with an interval. Pure, no IO.

A bootstrap draws held-out units (records, by default) with replacement, the same for both arms of a pair. Where the
main metric is a mean over records or units, its draws are exact. Any other metric, such as entity F1, is replaced by
its first-order approximation, from values that leave out one block of units after the other.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shared.tasks.kind import Evidence, TaskKind
from simulations.engines.worker import Seen
from simulations.experiment.sites import Groups
from simulations.results.result import Difference

STUDY_ARM = "federated"
RESAMPLES, SEED = 2000, 20
TWINS = {"without-privacy": STUDY_ARM, "head-without-privacy": "head-federated"}
CLOSE = "is below its private twin by less than these records can tell."
ILL_SUITED = (
    "is below its private twin: its learning rates (simulation.noiseless_factor or reference_…) or its few steps do "
    "not suit this task. Privacy does not help."
)
PERCENTILES = (2.5, 97.5)
BLOCKS = 60
TRIED = 12  # units in each small part on which a metric is tried for being a mean
Values = NDArray[np.float64]


def differences(
    kind: TaskKind,
    predictions: Mapping[str, Sequence[Seen]],
    groups: Groups | None = None,
    *,
    study_arm: str = STUDY_ARM,
) -> dict[str, Difference]:
    """Subtract each arm's main metric from that of the study's own, so that positive is better, with a 95 % interval.

    Args:
        kind: computes the metric.
        predictions: of every arm on the same held-out records, in any order of sites.
        groups: units of more than one record; default: each record is drawn by itself.
        study_arm: from which the others are subtracted.
    """
    evidence = {arm: _in_order(sites) for arm, sites in predictions.items()}
    units = _units(predictions[study_arm], groups)
    parts, weights = _parts(kind, evidence, units)
    sign = 1.0 if kind.higher_is_better else -1.0
    ours, compared = kind.metrics(evidence[study_arm])[kind.metric], dict[str, Difference]()
    for arm in evidence:
        if arm == study_arm:
            continue
        value = sign * (ours - kind.metrics(evidence[arm])[kind.metric])
        low, high = _ends(sign * (parts[study_arm] - parts[arm]), weights)
        name = groups.unit if groups else "record"
        compared[arm] = Difference(value=value, low=low, high=high, unit=name, units=len(units))
    return compared


def below_twins(
    kind: TaskKind, predictions: Mapping[str, Sequence[Seen]], groups: Groups | None = None
) -> dict[str, str]:
    """Say of each reference without privacy that is worse than its private twin why it is, by its name."""
    notes = {}
    for reference, twin in TWINS.items():
        if {reference, twin} <= set(predictions):
            pair = {name: predictions[name] for name in (reference, twin)}
            minus = differences(kind, pair, groups, study_arm=twin)[reference]
            if minus.value > 0:
                notes[reference] = CLOSE if minus.low <= 0 else ILL_SUITED
    return notes


def _in_order(sites: Sequence[Seen]) -> list[Evidence]:
    return [one for _, evidence in sorted(sites, key=lambda seen: seen.site) for one in evidence]


def _units(sites: Sequence[Seen], groups: Groups | None) -> list[list[int]]:
    """Return the places of each unit's evidence, with all sites' evidence in a row."""
    if groups is None:
        return [[place] for place in range(sum(len(seen.evidence) for seen in sites))]
    names = [groups.of_site[site].tolist() for site in sorted(seen.site for seen in sites)]
    places = dict[int, list[int]]()
    for place, unit in enumerate(itertools.chain.from_iterable(names)):
        places.setdefault(unit, []).append(place)
    return list(places.values())


def _parts(
    kind: TaskKind, evidence: Mapping[str, Sequence[Evidence]], units: Sequence[Sequence[int]]
) -> tuple[dict[str, Values], Values]:
    """Return values by arm, and one weight for each, whose weighted mean is the metric, drawn or not."""
    for weights in (np.array([len(unit) for unit in units], float), np.ones(len(units))):
        if all(_is_mean(kind, one, units, weights) for one in evidence.values()):
            parts = {arm: _own(kind, one, units) for arm, one in evidence.items()}
            if all(_same(np.average(parts[arm], weights=weights), _main(kind, one)) for arm, one in evidence.items()):
                return parts, weights
    order = np.random.default_rng(SEED).permutation(len(units))
    blocks = [[place for unit in block for place in units[unit]] for block in np.array_split(order, BLOCKS)]
    blocks = [block for block in blocks if block]
    return {arm: _by_leaving_out(kind, one, blocks) for arm, one in evidence.items()}, np.ones(len(blocks))


def _is_mean(kind: TaskKind, evidence: Sequence[Evidence], units: Sequence[Sequence[int]], weights: Values) -> bool:
    """Try a few small parts: is the metric on each the weighted mean of its units' own?"""
    generator = np.random.default_rng(SEED)
    for _ in range(3):
        tried = generator.choice(len(units), min(TRIED, len(units)), replace=False)
        chosen = [units[unit] for unit in tried]
        together = _main(kind, [evidence[place] for unit in chosen for place in unit])
        if not _same(np.average(_own(kind, evidence, chosen), weights=weights[tried]), together):
            return False
    return True


def _own(kind: TaskKind, evidence: Sequence[Evidence], units: Sequence[Sequence[int]]) -> Values:
    """Return the metric of each unit by itself; many records of a classifier are alike, and computed once."""
    known = dict[Evidence, float]()

    def value(unit: Sequence[int]) -> float:
        if len(unit) > 1:
            return _main(kind, [evidence[place] for place in unit])
        (one,) = (evidence[place] for place in unit)
        try:
            if one not in known:
                known[one] = _main(kind, [one])
            return known[one]
        except (TypeError, ValueError):  # lists and arrays cannot be looked up
            return _main(kind, [one])

    return np.array([value(unit) for unit in units], float)


def _by_leaving_out(kind: TaskKind, evidence: Sequence[Evidence], blocks: Sequence[Sequence[int]]) -> Values:
    """Return one value for each block, whose mean is the metric and which vary as the block's influence on it.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 11.5; the delete-a-group jackknife.
    """
    total = _main(kind, evidence)
    if len(blocks) < 2:
        return np.full(len(blocks), total)
    without = np.empty(len(blocks))
    for number, block in enumerate(blocks):
        left_out = set(block)
        without[number] = _main(kind, [one for place, one in enumerate(evidence) if place not in left_out])
    values: Values = total + (len(blocks) - 1) * (without.mean() - without)
    return values


def _main(kind: TaskKind, evidence: Sequence[Evidence]) -> float:
    return float(kind.metrics(evidence)[kind.metric])


def _same(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)


def _ends(values: Values, weights: Values) -> tuple[float, float]:
    """Return the percentiles of weighted means over draws with replacement."""
    if not np.isfinite(values).all():
        return math.nan, math.nan
    generator, count, means = np.random.default_rng(SEED), len(values), np.empty(RESAMPLES)
    weighted = values * weights
    for number in range(RESAMPLES):
        drawn = generator.integers(0, count, count)
        means[number] = weighted[drawn].sum() / weights[drawn].sum()
    low, high = np.percentile(means, PERCENTILES)
    return float(low), float(high)
