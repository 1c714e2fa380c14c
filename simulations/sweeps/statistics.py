"""Means over seeds with their intervals, and paired tests between settings and arms. Pure, no IO.

All tests are two-sided t-tests on differences of the same seed, which has the same split and batches. Where several
settings are compared with the first, Holm's p bounds the chance of a single false alarm among all of them.
Seeds differ in noise, batches or splits of one data set, as `varied` says: no interval speaks of other data.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from shared.evidence.facts import Interval
from shared.private_evaluation.estimates import Evaluated
from simulations.results.report import OURS, evaluated, over_seeds, quality_over_seeds, spread_over_seeds
from simulations.results.result import Result
from simulations.run_identity.arms import folded
from simulations.run_identity.seeds import SOURCES, Source, seeds_of, varying
from simulations.sweeps.cells import Cell

Setting = tuple[tuple[str, str], ...]
Runs = Mapping[Cell, Result]


class Compared(NamedTuple):
    """A difference over seeds, positive where it is better, and the chance of a larger one if there were none."""

    seeds: int
    """Pairs."""
    minus: Interval
    p: float | None
    """None of fewer than two pairs, and where pairs do not differ among each other."""


class Row(NamedTuple):
    """One arm at one setting."""

    setting: Setting
    arm: str
    title: str
    private: bool
    epsilon: float | None
    """Of the seed that spends most."""
    seeds: int
    quality: Interval
    worst: float
    """Mean over seeds of the worst site's metric."""
    ahead: Compared | None
    """`federated` minus this arm; None for itself."""


class Against(NamedTuple):
    """The study's own arm at a setting, beside the first setting."""

    setting: Setting
    first: Setting
    compared: Compared
    holm: float | None
    """p, corrected for all settings that are compared."""


def rows_of(runs: Runs) -> list[Row]:
    """Return every arm at every setting, in the order of the sweep."""
    by_setting = _by_setting(runs)
    one_name = {setting: [folded(result) for result in results] for setting, results in by_setting.items()}
    return [_row(setting, arm, results) for setting, results in one_name.items() for arm in _arms(results)]


def against_first(runs: Runs, first: Setting) -> list[Against]:
    """Compare settings with the first one, by the study's own arm; with none if no run of the first has finished."""
    by_setting = dict[Setting, dict[Setting, Result]]()
    for cell, result in runs.items():
        by_setting.setdefault(cell.setting, {})[cell.repeat] = result
    if first not in by_setting:
        return []
    others = [setting for setting in by_setting if setting != first]
    compared = [_paired(by_setting[other], by_setting[first]) for other in others]
    corrected = holm([one.p for one in compared])
    return [Against(other, first, one, p) for other, one, p in zip(others, compared, corrected, strict=True)]


def evaluations_of(runs: Runs) -> list[tuple[Setting, Evaluated]]:
    """Return the last private evaluation at each setting that has one, over its seeds."""
    made = [(setting, evaluated(results)) for setting, results in _by_setting(runs).items()]
    return [(setting, one) for setting, one in made if one is not None]


def varied(runs: Runs) -> list[Source]:
    """Return what was drawn from seeds that differ between runs of one setting."""
    seeds = [varying([seeds_of(result.scenario) for result in results]) for results in _by_setting(runs).values()]
    return [source for source in SOURCES if any(source in one for one in seeds)]


def best_setting(runs: Runs, failed: Collection[Cell]) -> Setting | None:
    """Return the setting whose mean is best by the study's own arm, among those that finished at every seed.

    Of equals it is the first, nan is worse than anything, and None stands for no such setting.
    """
    unfinished = {cell.setting for cell in failed}
    by_setting = {setting: each for setting, each in _by_setting(runs).items() if setting not in unfinished}

    def goodness(setting: Setting) -> float:
        finals = [result.final for result in by_setting[setting]]
        mean = statistics.fmean(one.value if one.higher_is_better else -one.value for one in finals)
        return -math.inf if math.isnan(mean) else mean

    return max(by_setting, key=goodness, default=None)


def paired(differences: Sequence[float], *, of: Sequence[float] = ()) -> Compared:
    """Return the mean of differences with its interval of 95 %, and the p of a paired t-test that there is none.

    Args:
        differences: one for each pair.
        of: the values that were subtracted: where their rounding alone tells differences apart, there is no interval
            and no p.
    """
    p = None
    if spread := spread_over_seeds(differences, of=of):
        t = statistics.fmean(differences) / (spread / len(differences) ** 0.5)
        p = 2 * float(stats.t.sf(abs(t), len(differences) - 1))
    return Compared(len(differences), over_seeds(differences, of=of) if differences else Interval(value=math.nan), p)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number; None stays None and is counted as a comparison all the same.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    made: list[float | None] = [None] * len(ps)
    known, largest = sorted((p, place) for place, p in enumerate(ps) if p is not None), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(ps) - rank) * p))
        made[place] = largest
    return made


def _by_setting(runs: Runs) -> dict[Setting, list[Result]]:
    by_setting = dict[Setting, list[Result]]()
    for cell, result in runs.items():
        by_setting.setdefault(cell.setting, []).append(result)
    return by_setting


def _arms(results: Sequence[Result]) -> list[str]:
    """Return the arms that any seed has, in their order."""
    return list(dict.fromkeys(arm for result in results for arm in result.arms))


def _row(setting: Setting, arm: str, results: Sequence[Result]) -> Row:
    here = [result for result in results if arm in result.arms]
    one, ahead = here[0].arms[arm], None
    if arm != OURS:
        sign = 1.0 if one.quality.higher_is_better else -1.0
        ahead = _of_pairs([(result.final.value, result.arms[arm].quality.value) for result in here], sign)
    worst = statistics.fmean(result.arms[arm].quality.worst_site.value for result in here)
    spent = [result.arms[arm].epsilon for result in here]
    epsilon = max((epsilon for epsilon in spent if epsilon is not None), default=None)
    quality = quality_over_seeds(here, arm)
    return Row(setting, arm, one.title, one.private, epsilon, len(here), quality, worst, ahead)


def _paired(these: Mapping[Setting, Result], those: Mapping[Setting, Result]) -> Compared:
    both = [(these[repeat].final, those[repeat].final) for repeat in these if repeat in those]
    sign = 1.0 if all(one.higher_is_better for one, _ in both) else -1.0
    return _of_pairs([(one.value, other.value) for one, other in both], sign)


def _of_pairs(pairs: Sequence[tuple[float, float]], sign: float) -> Compared:
    return paired([sign * (one - other) for one, other in pairs], of=[value for pair in pairs for value in pair])
