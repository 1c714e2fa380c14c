"""Make a simulation's report: of one run, or of several that differ in their seed alone."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipy import stats

from shared.errors import SettingsError
from shared.evidence.facts import (
    Answer,
    Arm,
    Further,
    Interval,
    Language,
    Left,
    Mechanism,
    PluginUse,
    Point,
    Report,
    RunFacts,
    SimulationFacts,
    SiteFacts,
    Size,
    StudyFacts,
    SubgroupFacts,
    meaning,
)
from shared.evidence.signed_report import SignedReport, renderer, written
from shared.files import write_atomically
from shared.private_evaluation.estimates import Estimate, Evaluated
from simulations.results.metric_names import SHARES, words
from simulations.results.result import Difference, Effect, Quality, Result, evaluated_adapter
from simulations.results.wording import in_points, notes
from simulations.run_identity.arms import folded
from simulations.run_identity.seeds import SHARED, SOURCES, crossed, seeds_of, varying, without_seed

CONFIDENCE = 0.95
OURS, UNPROTECTED = "federated", "without-privacy"
ACCURACY = "accuracy"
ROUNDING = 1e-12
"""A spread of less than this, beside the values themselves, is what arithmetic leaves and no difference."""
FEWEST = 30
"""Held-out units of a subgroup; smaller ones make no gap and stand in no report."""
MOST_NAMED = 10
EXTREMES = ("gap", "worst site")
"""Scopes of estimates that noise moves to one side."""


def write_report(result: Result, path: Path) -> None:
    """Write a result as one self-contained HTML file."""
    write_atomically(path, written(SignedReport(report_of([result])), "html"))


def report_of(results: Sequence[Result], *, language: Language = "en") -> Report:
    """Return the report of a run, or of runs of one scenario under several seeds: then figures are means over these.

    Raises:
        SettingsError: the runs differ in more than their seed, or share a seed that others of them do not.
    """
    if len(results) > 1:
        results = [folded(result) for result in results]
    _check_same(results)
    first = results[0]
    study, privacy = first.scenario.get("study", {}), list(first.privacy.values())
    scenario_privacy: Mapping[str, Any] = first.scenario.get("privacy", {})
    spent = max(site.epsilon_rdp for result in results for site in result.privacy.values())
    return Report(
        kind="simulation",
        language=language,
        fedvault=first.fedvault_version,
        renderer=renderer(),
        issued=datetime.now(UTC).isoformat(timespec="seconds"),
        study=StudyFacts(
            name=study["name"],
            sha256=first.study_sha256,
            purpose=study.get("purpose") or study.get("description", ""),
            requester=study.get("requester", ""),
            contact=study.get("contact", ""),
            legal_basis=study.get("legal_basis", ""),
            retention=study.get("retention", ""),
            unit=privacy[0].unit,
            epsilon=scenario_privacy.get("epsilon"),
            delta=privacy[0].delta,
        ),
        run=_run(first),
        answer=_answer(results),
        left=_left(results),
        meaning=meaning(spent),
        mechanism=_mechanism(results),
        simulation=_simulation(results),
        further=Further(
            audit=first.audit,
            evaluation=evaluated(results),
            subgroups=tuple(_subgroups(results)),
            choice=first.choice if len(results) == 1 else None,
            plugins=_plugins(results),
        ),
    )


def evaluated(results: Sequence[Result]) -> Evaluated | None:
    """Return the private evaluation of what a run hands out; of runs that differ in their seed means, with intervals.

    What is not shown at every seed is not shown. Other intervals are by Student's t over seeds. A gap and a worst site
    are extremes, which noise makes larger at every seed alike: theirs reach from the lowest end of any seed to the
    highest, so that where there is no gap it begins above zero no more often than at one seed.
    """
    last = [one for one in map(evaluated_adapter, results) if one is not None]
    if len(last) < len(results):
        return None
    if len(last) == 1 or len({one.number for one in last}) > 1:
        return last[0] if len(last) == 1 else None
    by_seed = [{_key(estimate): estimate for estimate in one.estimates} for one in last]
    common = [key for key in by_seed[0] if all(key in one for one in by_seed)]
    return last[0].model_copy(
        update={
            "sites": tuple(site for site in last[0].sites if all(site in one.sites for one in last)),
            "without": {site: why for one in last for site, why in one.without.items()},
            "estimates": tuple(_estimate_over_seeds([one[key] for one in by_seed]) for key in common),
        }
    )


def _key(one: Estimate) -> tuple[str, str, str, str]:
    """Return what an estimate is of; which site is the worst may differ between seeds."""
    return one.scope, "" if one.scope == "worst site" else one.name, one.measure, one.label


def _estimate_over_seeds(seeds: Sequence[Estimate]) -> Estimate:
    names = ", ".join(dict.fromkeys(one.name for one in seeds))
    bare = Estimate(scope=seeds[0].scope, name=names, measure=seeds[0].measure, label=seeds[0].label)
    values, lows, highs = ([getattr(one, end) for one in seeds] for end in ("value", "low", "high"))
    if None in (*values, *lows, *highs):
        return bare
    mean = over_seeds(values)
    low, high = (min(lows), max(highs)) if bare.scope in EXTREMES else (mean.low, mean.high)
    return bare.model_copy(update={"value": mean.value, "low": low, "high": high})


def _run(result: Result) -> RunFacts:
    done, declared = len(result.rounds), result.scenario.get("federation", {}).get("rounds", len(result.rounds))
    ended_early = result.choice is not None and result.choice.ends_after(done) and done < declared
    return RunFacts(
        name="", state="ended early" if ended_early else "finished", rounds=max(done, declared), rounds_done=done
    )


def _plugins(results: Sequence[Result]) -> tuple[PluginUse, ...]:
    return tuple(dict.fromkeys(one for result in results for one in result.plugins))


def _check_same(results: Sequence[Result]) -> None:
    seeds = [seeds_of(result.scenario) for result in results]
    bare = [without_seed(result.scenario) for result in results]
    different = [place for place, scenario in enumerate(bare) if scenario != bare[0]]
    if different or len(set(seeds)) < len(results) or any(set(one.arms) != set(results[0].arms) for one in results):
        raise SettingsError(
            "Expected runs of one scenario that differ in simulation.seed alone, got others.",
            hint="fedvault-sim run SCENARIO --set simulation.seed=2 --out runs/second",
        )
    if crossed(seeds):
        listed = "; ".join(one.in_words for one in seeds)
        raise SettingsError(
            f"Expected runs whose seeds all differ, got {listed}: {SHARED}.",
            hint="Make a report of those that have one of these seeds in common.",
        )


def _answer(results: Sequence[Result]) -> Answer:
    first, counted = results[0], [site.evaluated for site in results[0].data.values()]
    final = first.final
    cost = minus(results, UNPROTECTED) if UNPROTECTED in first.arms else None
    return Answer(
        metric=words(final.metric),
        higher_is_better=final.higher_is_better,
        quality=quality_over_seeds(results, OURS),
        counted=None if None in counted or not counted else sum(one for one in counted if one is not None),
        measured_on=first.evaluated_on,
        in_points=in_points(first),
        privacy_cost=None if cost is None else _turned(cost),
        over_seeds=len(results),
    )


def _turned(one: Interval) -> Interval:
    low, high = one.low, one.high
    return Interval(value=-one.value, low=None if high is None else -high, high=None if low is None else -low)


def quality_over_seeds(results: Sequence[Result], arm: str) -> Interval:
    """Return an arm's mean main metric with its interval over seeds; that of a share ends at 0 and 1."""
    one = over_seeds([result.arms[arm].quality.value for result in results])
    if one.low is None or one.high is None or results[0].final.metric not in SHARES:
        return one
    return one.model_copy(update={"low": max(0.0, one.low), "high": min(1.0, one.high)})


def over_seeds(values: Sequence[float], *, of: Sequence[float] = ()) -> Interval:
    """Return the mean with its two-sided interval of 95 % by Student's t.

    A single value has none, and neither have values that do not differ.

    Args:
        values: one for each seed.
        of: what they were computed from, if they are differences: these round as such numbers do.
    """
    mean = statistics.fmean(values)
    if not (spread := spread_over_seeds(values, of=of)):
        return Interval(value=mean)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread / len(values) ** 0.5
    return Interval(value=mean, low=mean - half, high=mean + half)


def spread_over_seeds(values: Sequence[float], *, of: Sequence[float] = ()) -> float:
    """Return the standard deviation; 0 of fewer than two, of what is not finite, and of what rounding alone leaves."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return 0.0
    deviation = statistics.stdev(values)
    return 0.0 if deviation <= ROUNDING * max(map(abs, (*values, *of))) else deviation


def minus(results: Sequence[Result], name: str) -> Interval | None:
    """Return the study's own arm less another, positive where it is better: paired by seed, or by record."""
    if len(results) == 1:
        drawn = results[0].differences.get(name)
        return None if drawn is None else _drawn(drawn)
    sign = 1.0 if results[0].final.higher_is_better else -1.0
    pairs = [(result.arms[OURS].quality.value, result.arms[name].quality.value) for result in results]
    return over_seeds([sign * (ours - other) for ours, other in pairs], of=[value for pair in pairs for value in pair])


def _drawn(one: Difference) -> Interval:
    if not (math.isfinite(one.low) and math.isfinite(one.high)):
        return Interval(value=one.value)
    return Interval(value=one.value, low=one.low, high=one.high)


def _left(results: Sequence[Result]) -> Left:
    """Return what left the sites; of several runs, which may ask other sites or end early, the means of one."""
    sent = [sum(one.accepted + len(one.rejected) for one in result.rounds) for result in results]
    lengths = [updates * result.bytes.up_per_node_round for updates, result in zip(sent, results, strict=True)]
    houses = [len(result.privacy) for result in results]
    return Left(houses=_mean(houses), updates=_mean(sent), bytes=_mean(lengths))


def _mean(counts: Sequence[int]) -> int:
    return round(statistics.fmean(counts))


def _mechanism(results: Sequence[Result]) -> Mechanism:
    most = max((site for one in results for site in one.privacy.values()), key=lambda site: site.epsilon_rdp)
    return Mechanism(noise_multiplier=most.noise_multiplier, sampling_rate=most.sampling_rate, steps=most.steps)


def _simulation(results: Sequence[Result]) -> SimulationFacts:
    first = results[0]
    drawn, varied = next(iter(first.differences.values()), None), varying([seeds_of(one.scenario) for one in results])
    return SimulationFacts(
        arms=tuple(_arm(results, name) for name in first.arms),
        sites=tuple(_sites(results)),
        curve=_points([_own_curve(result) for result in results]),
        sizes=tuple(_sizes(first)),
        minutes=sum(seconds for result in results for seconds in result.timing.values()) / 60,
        differ_over="seeds" if len(results) > 1 else "records",
        seeds_of=() if varied == SOURCES else varied,
        drawn_unit="record" if drawn is None else drawn.unit,
        drawn_units=0 if drawn is None else drawn.units,
        notes=(*notes(first), *_absent(results), *first.warnings),
    )


def _arm(results: Sequence[Result], name: str) -> Arm:
    seeds = [result.arms[name] for result in results]
    worst = [one.quality.worst_site for one in seeds]
    return Arm(
        title=seeds[0].title,
        ours=name == OURS,
        private=seeds[0].private,
        epsilon=_most([one.epsilon for one in seeds]),
        epsilon_if_all_collude=_most([one.epsilon_if_all_collude for one in seeds]),
        rows=_mean([one.rows for one in seeds]),
        steps=_mean([one.steps for one in seeds]),
        quality=quality_over_seeds(results, name),
        worst_site=", ".join(dict.fromkeys(one.site for one in worst)),
        worst=statistics.fmean(one.value for one in worst),
        minus=None if name == OURS else minus(results, name),
        curve=_points([one.curve for one in seeds]),
    )


def _most(spent: Sequence[float | None]) -> float | None:
    return max((one for one in spent if one is not None), default=None)


def _own_curve(result: Result) -> dict[int, Quality]:
    return {one.round: one.evaluation for one in result.rounds if one.evaluation is not None}


def _points(seeds: Sequence[Mapping[int, Quality]]) -> tuple[Point, ...]:
    """Return means over seeds, of the rounds after which each of them was evaluated."""
    by_round = {
        number: [curve[number] for curve in seeds]
        for number in sorted(seeds[0])
        if all(number in curve for curve in seeds)
    }
    return tuple(
        Point(
            round=number,
            value=statistics.fmean(one.value for one in measured),
            worst=statistics.fmean(one.worst_site.value for one in measured),
        )
        for number, measured in by_round.items()
    )


def _sites(results: Sequence[Result]) -> list[SiteFacts]:
    """Return the sites that are there at each seed; counts are means over seeds too."""
    evaluated = {name: [result.data[name].evaluated for result in results] for name in _present(results)}
    return [
        SiteFacts(
            name=name,
            train=round(statistics.fmean(result.data[name].train for result in results)),
            evaluated=None if None in counts else round(statistics.fmean(one for one in counts if one is not None)),
            quality=statistics.fmean(result.final.per_site[name] for result in results),
            epsilon=max(result.privacy[name].epsilon_rdp for result in results),
        )
        for name, counts in evaluated.items()
    ]


def _present(results: Sequence[Result]) -> list[str]:
    by_seed = [_with_figures(result) for result in results]
    return [name for name in by_seed[0] if all(name in names for names in by_seed)]


def _with_figures(result: Result) -> list[str]:
    return [name for name in result.privacy if name in result.data and name in result.final.per_site]


def _absent(results: Sequence[Result]) -> list[str]:
    """Say which sites have no figures of their own, as some seed lacks them."""
    present, union = set(_present(results)), dict.fromkeys(name for one in results for name in _with_figures(one))
    absent = [name for name in union if name not in present]
    if not absent:
        return []
    named = ", ".join(absent[:MOST_NAMED]) + (", …" if len(absent) > MOST_NAMED else "")
    return [f"Sites without figures of their own, as some seed lacks them: {len(absent)} ({named})."]


def _subgroups(results: Sequence[Result]) -> Iterator[SubgroupFacts]:
    """Yield the subgroups that are large enough at every seed."""
    ours = [result.arms[OURS].fairness for result in results]
    for column in ours[0]:
        by_seed = [fairness[column].subgroups for fairness in ours if column in fairness]
        for name in by_seed[0]:
            seeds = [one[name] for one in by_seed if name in one and one[name].units >= FEWEST]
            if len(seeds) == len(results):
                effects = [one.effects[ACCURACY] for one in seeds if ACCURACY in one.effects]
                yield SubgroupFacts(
                    column=column,
                    name=name,
                    units=round(statistics.fmean(one.units for one in seeds)),
                    quality=statistics.fmean(one.rates[ACCURACY] for one in seeds),
                    effect=_effect(effects) if len(effects) == len(results) else None,
                )


def _effect(effects: Sequence[Effect]) -> Interval:
    if len(effects) > 1:
        return over_seeds([one.value for one in effects])
    return Interval(value=effects[0].value, low=effects[0].low, high=effects[0].high)


def _sizes(result: Result) -> list[Size]:
    sizes = result.bytes
    # results of before there was a choice know one size only
    sent = sizes.up_by_wire or {"float32": sizes.up_per_node_round}
    rows = [Size(way=f"this adapter, {wire}", bytes=size) for wire, size in sent.items()]
    if sizes.full_lora_up is not None:
        rows.append(Size(way="LoRA A and B, all layers", bytes=sizes.full_lora_up))
    return [*rows, Size(way="the whole model", bytes=sizes.full_model_up)]
