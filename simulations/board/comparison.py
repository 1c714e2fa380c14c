"""Compare settings: runs that differ in their seed alone are one, and one metric on one data set stands together.

Pure, no IO. Differences are paired: by seed where there are several, else by held-out record.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from shared.evidence.facts import Interval
from simulations.board.runs import BoardRun, differing
from simulations.results.report import OURS, minus, over_seeds, quality_over_seeds
from simulations.results.wording import in_points
from simulations.run_identity.arms import folded
from simulations.run_identity.seeds import SEED_KEYS, SHARED, crossed, without_seed

EPSILON = "privacy.epsilon"
NAME = "study.name"
TOLD_APART_BY = 3
"""Settings that a label names at most."""
WORDY = ("study.", "task.labels", "simulation.arms")
"""Settings that say nothing in a label."""


@dataclass(frozen=True)
class Setting:
    """Runs of one scenario that differ in their seed alone."""

    label: str
    runs: Sequence[BoardRun]
    """By seed."""

    @property
    def crossed(self) -> bool:
        """Return whether some runs share a seed that others differ in: then they are no independent repeats."""
        return crossed([run.seeds for run in self.runs])

    @property
    def results(self) -> list[Any]:
        """Return the results, by seed."""
        return [run.result for run in self.runs]

    @property
    def arms(self) -> dict[str, str]:
        """Return the titles of the arms that every run has."""
        first = self.runs[0].result.arms
        return {name: arm.title for name, arm in first.items() if all(name in run.result.arms for run in self.runs)}

    @property
    def epsilon(self) -> float:
        """Return the most that a site spends."""
        return max(site.epsilon_rdp for run in self.runs for site in run.result.privacy.values())

    def quality(self, arm: str = OURS) -> Interval:
        """Return an arm's main metric, with an interval over seeds if there are several independent ones."""
        one = quality_over_seeds(self.results, arm)
        return Interval(value=one.value) if self.crossed else one

    def minus(self, arm: str) -> Interval | None:
        """Return the study's own arm less another, positive where it is better."""
        one = minus(self.results, arm)
        return Interval(value=one.value) if one is not None and self.crossed else one

    def curve(self, arm: str = OURS) -> list[tuple[float, float]]:
        """Return an arm round by round, as means over seeds; one that runs did not evaluate in between has none."""
        values = dict[int, list[float]]()
        for run in self.runs:
            ours = {one.round: one.evaluation for one in run.result.rounds if one.evaluation is not None}
            for number, measured in (ours if arm == OURS else run.result.arms[arm].curve).items():
                values.setdefault(number, []).append(measured.value)
        return [(float(number), fmean(each)) for number, each in sorted(values.items()) if len(each) == len(self.runs)]

    def minutes(self) -> float:
        """Return the minutes that one run took, as a mean."""
        return fmean(sum(run.result.timing.values()) for run in self.runs) / 60

    def sent_bytes(self) -> int:
        """Return what one node sends in all rounds of a run."""
        first = self.runs[0].result
        return first.bytes.up_per_node_round * len(first.rounds)


class Comparison(NamedTuple):
    """Settings whose figures may stand in one table."""

    metric: str
    higher_is_better: bool
    source: str
    """The data set."""
    evaluated_on: str
    in_points: bool
    settings: Sequence[Setting]


def comparisons(runs: Sequence[BoardRun]) -> tuple[list[Comparison], list[str]]:
    """Put runs together, and say which are left out and which show no interval, and why."""
    groups, notes = _groups(runs)
    labels = _labels(groups)
    together = dict[tuple[str, bool, str, str], list[Setting]]()
    for label, group in zip(labels, groups, strict=True):
        result = group[0].result
        one_name = [replace(run, result=folded(run.result)) for run in sorted(group, key=lambda run: run.seeds)]
        source = str(group[0].settings.get("simulation.data.source", "")).removeprefix("dataset:")
        key = (result.final.metric, result.final.higher_is_better, source, result.evaluated_on)
        together.setdefault(key, []).append(Setting(label, one_name))
    notes += [f"{one.label} has no interval: {SHARED}." for each in together.values() for one in each if one.crossed]
    return [
        Comparison(*key, all(in_points(result) for one in settings for result in one.results), settings)
        for key, settings in together.items()
    ], notes


def paired(reference: Setting, other: Setting, *, higher_is_better: bool) -> Interval | None:
    """Return a setting less the reference over the seeds that both have, positive where it is better.

    Pairs that share a seed are no independent repeats, and have no interval.
    """
    values = {run.seeds: run.result.final.value for run in reference.runs}
    pairs = [run for run in other.runs if run.seeds in values]
    if not pairs:
        return None
    sign = 1.0 if higher_is_better else -1.0
    both = [(run.result.final.value, values[run.seeds]) for run in pairs]
    one = over_seeds([sign * (ours - theirs) for ours, theirs in both], of=[value for pair in both for value in pair])
    return Interval(value=one.value) if crossed([run.seeds for run in pairs]) else one


def families(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Return settings that differ in epsilon alone together, by epsilon."""
    alike = dict[str, list[Setting]]()
    for one in settings:
        values = one.runs[0].settings.items()
        rest = {key: value for key, value in values if key != EPSILON and not key.startswith(SEED_KEYS)}
        alike.setdefault(_text(rest), []).append(one)
    return [sorted(each, key=lambda one: one.epsilon) for each in alike.values()]


def _groups(runs: Sequence[BoardRun]) -> tuple[list[list[BoardRun]], list[str]]:
    groups, notes = dict[str, list[BoardRun]](), list[str]()
    for run in runs:
        group = groups.setdefault(_text(without_seed(run.result.scenario)), [])
        twin = next((other for other in group if other.seeds == run.seeds), None)
        if twin is None:
            group.append(run)
        else:
            notes.append(f"{run.name} is left out: {twin.name} has the same settings and the same seed.")
    return list(groups.values()), notes


def _labels(groups: Sequence[Sequence[BoardRun]]) -> list[str]:
    """Name each group by its study, if these differ, and by what else tells it apart."""
    firsts = [group[0] for group in groups]
    names = [str(run.settings.get(NAME, "")) for run in firsts]
    labels = list[str]()
    for run, name in zip(firsts, names, strict=True):
        alike = [other for other, its_name in zip(firsts, names, strict=True) if its_name == name]
        changed = [key for key in differing(alike) if not key.startswith(WORDY)][:TOLD_APART_BY]
        parts = ([name] if len(set(names)) > 1 or not changed else []) + [
            _setting(key, run.settings) for key in changed
        ]
        labels.append(", ".join(parts))
    return [
        label if labels.count(label) == 1 else f"{label} ({run.name})"
        for label, run in zip(labels, firsts, strict=True)
    ]


def _setting(key: str, settings: Mapping[str, Any]) -> str:
    value = settings.get(key)
    name = "ε" if key == EPSILON else key.rpartition(".")[2].replace("_", " ")
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
