"""Turn what a run did into its result: pure, no IO."""

import importlib.metadata
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from server.rounds.checkpoints import State
from shared.adapted_model.payload_sizes import adapter_bytes, full_lora_bytes, full_model_bytes
from shared.privacy.accounting import epsilon_if_colluding, epsilon_prv, epsilon_rdp
from shared.privacy.collusion import whole_run
from shared.privacy.noise_schedule import NoiseSchedule, schedule_of
from shared.privacy.releases import SharedGaussian
from shared.private_evaluation.noise import all_counts
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes
from shared.tasks.registry import task_kind
from simulations.engines.worker import Seen
from simulations.experiment.arms import Arm
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared, Site
from simulations.results.result import (
    ArmResult,
    Bytes,
    Difference,
    Quality,
    Result,
    RoundResult,
    SiteData,
    SitePrivacy,
    WorstSite,
)


class Sizes(NamedTuple):
    """Bytes of an update, known before anything is trained."""

    up_by_wire: dict[str, int]
    full_lora_up: int | None
    full_model_up: int


def sizes_of_updates(study: Study) -> Sizes:
    """Return the bytes of an update by encoding, and of other ways of training the same model."""
    return Sizes(adapter_bytes(study), full_lora_bytes(study), full_model_bytes(study))


def quality(study: Study, predictions: Sequence[Seen], *, last: bool = True) -> Quality:
    """Compute metrics over all sites' held-out records, by site and of the worst; sites in alphabetical order.

    Args:
        study: as declared.
        predictions: of all sites.
        last: whether every metric is kept by site, as for an arm's last adapter.
    """
    kind = task_kind(study.task)
    of_site = {site: kind.metrics(evidence) for site, evidence in sorted(predictions) if evidence}
    by_site = {site: metrics[kind.metric] for site, metrics in of_site.items()}
    overall = kind.metrics([one for seen in predictions for one in seen.evidence])
    return Quality(
        metric=kind.metric,
        higher_is_better=kind.higher_is_better,
        value=overall[kind.metric],
        metrics=overall,
        per_site=by_site,
        worst_site=worst_of(by_site, higher_is_better=kind.higher_is_better),
        metrics_by_site=of_site if last else {},
    )


def worst_of(per_site: dict[str, float], *, higher_is_better: bool) -> WorstSite:
    """Return the site with the worst value, the first of equals; nan is worse than anything."""

    def badness(site: str) -> float:
        value = per_site[site]
        return math.inf if math.isnan(value) else -value if higher_is_better else value

    site = max(per_site, key=badness)
    return WorstSite(site=site, value=per_site[site])


def untrained(title: str, measured: Quality, seconds: float, *, private: bool = True, note: str = "") -> ArmResult:
    """Return the result of an arm that trained nothing; it is private if it touched no training record at all."""
    return ArmResult(
        title=title,
        private=private,
        epsilon=None,
        rows=0,
        units=0,
        sampling_rate=None,
        steps=0,
        seconds=seconds,
        quality=measured,
        note=note,
    )


def trained(arm: Arm, prepared: Prepared, state: State, measured: Quality) -> ArmResult:
    """Return the result of an arm that was trained.

    Args:
        arm: as declared.
        prepared: its sites.
        state: its final one.
        measured: of the adapter that it hands out.
    """
    by_round = {int(number): Quality.model_validate(one) for number, one in state.evaluations.items() if one}
    sites = [site for site in prepared.sites if site.index in arm.site_indices]
    released = state.round * arm.study.training.local_steps  # fewer than declared if its evaluations ended it
    release, delta = schedule_of(arm.study).release(released), arm.study.privacy.delta
    if_all_collude = None
    if isinstance(release, SharedGaussian):
        sizes = sum_sizes(len(sites), arm.study.federation)
        release = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
        if_all_collude = epsilon_if_colluding([whole_run(release, all_counts(arm.study))], delta)
    spent = epsilon_rdp([release], delta)
    return ArmResult(
        title=arm.title,
        private=arm.protected,
        epsilon=spent if arm.protected else None,
        epsilon_if_all_collude=if_all_collude,
        rows=sum(site.train for site in sites),
        units=sum(site.unit_count for site in sites),
        sampling_rate=arm.study.privacy.sampling_rate,
        steps=released,
        seconds=sum(sum(record["seconds"].values()) for record in state.records),
        quality=measured,
        curve={}
        if arm.name == "federated" or len(by_round) == 1
        else {number: one.model_copy(update={"metrics_by_site": {}}) for number, one in by_round.items()},
    )


def summary(
    scenario: Scenario,
    prepared: Prepared,
    arms: dict[str, ArmResult],
    state: State,
    timing: dict[str, float],
    differences: dict[str, Difference],
    evaluated: Mapping[str, int],
    sizes: Sizes,
) -> Result:
    """Return the whole result, from the final state of the study's own arm.

    Args:
        scenario: as declared.
        prepared: its sites.
        arms: by name.
        state: of the study's own arm.
        timing: seconds by phase.
        differences: of that arm to each other one.
        evaluated: held-out records that metrics count, by site.
        sizes: of what the study sends, and of what it is compared with.
    """
    study = scenario.as_study()
    sites = dict(enumerate(prepared.sites, start=1))
    records = state.records
    return Result(
        fedvault_version=importlib.metadata.version("fedvault"),
        study_sha256=study.sha256,
        scenario=scenario.model_dump(mode="json"),
        rounds=[_round_result(record, sites, state.evaluations) for record in records],
        evaluated_on=scenario.simulation.data.evaluate,
        final=arms["federated"].quality,
        arms=arms,
        baselines={name: arm for name, arm in arms.items() if name != "federated"},
        privacy=_privacy(study, sites, records),
        bytes=Bytes(
            up_per_node_round=max(record["bytes_up_per_node"] for record in records),
            down_per_node_round=max(record["bytes_down_per_node"] for record in records),
            up_by_wire=sizes.up_by_wire,
            full_lora_up=sizes.full_lora_up,
            full_model_up=sizes.full_model_up,
        ),
        timing=timing,
        differences=differences,
        data={
            s.name: _site_data(s, evaluated.get(s.name, 0))
            for s in dict.fromkeys((*prepared.sites, *prepared.evaluated))
        },
        warnings=list(prepared.warnings),
    )


def _privacy(study: Study, sites: dict[int, Site], records: Sequence[dict[str, Any]]) -> dict[str, SitePrivacy]:
    # a node that was asked may have trained even if its answer was lost: that round counts as spent
    spent_too, joined = ("failed", "lost"), Counter[int]()
    for record in records:
        refused = {entry["node"] for entry in record["refused"] if entry["status"] not in spent_too}
        joined.update(set(record["asked"]) - refused)
    # thousands of sites share a few numbers of rounds, and a figure takes part of a second
    schedule, delta = schedule_of(study), study.privacy.delta
    costs = dict[int, tuple[float, float | None]]()
    for rounds in {joined[number] for number in sites}:
        history = [schedule.release(rounds * study.training.local_steps)] if rounds else []
        costs[rounds] = epsilon_rdp(history, delta), epsilon_prv(history, delta)
    return {
        site.name: _spent(study, schedule, site, joined[number], costs[joined[number]])
        for number, site in sites.items()
    }


def _spent(
    study: Study, schedule: NoiseSchedule, site: Site, rounds: int, cost: tuple[float, float | None]
) -> SitePrivacy:
    return SitePrivacy(
        epsilon_rdp=cost[0],
        epsilon_prv=cost[1],
        delta=schedule.delta,
        noise_multiplier=schedule.noise_multiplier,
        sampling_rate=schedule.sampling_rate,
        steps=rounds * study.training.local_steps,
        unit=schedule.unit,
        adjacency="add or remove one",
        sampling="Poisson",
        accountant="RDP",
        clipping=schedule.clipping,
        clip_norm=schedule.clip_norm,
        declared_size=site.declared_size,
        seeded_noise=True,
    )


def _round_result(record: dict[str, Any], sites: dict[int, Site], evaluations: dict[str, Any]) -> RoundResult:
    def name(node: int) -> str:
        return sites[node].name if node in sites else f"node {node}"

    evaluation = evaluations.get(str(record["round"]))
    # the last round's is the arm's own, which has every metric by site
    measured = Quality.model_validate(evaluation | {"metrics_by_site": {}}) if evaluation else None
    return RoundResult(
        round=record["round"],
        outcome=record["outcome"],
        seconds=sum(record["seconds"].values()),
        accepted=len(record["accepted"]),
        rejected=[{"site": name(e["node"]), "reason": e["reason"]} for e in record["rejected"]],
        refused=[{"site": name(e["node"]), "status": e["status"]} for e in record["refused"]],
        missing=[name(node) for node in record["missing"]],
        evaluation=measured,
    )


def _site_data(site: Site, evaluated: int) -> SiteData:
    return SiteData(
        rows=site.rows,
        train=site.train,
        units=site.unit_count,
        holdout=site.holdout,
        evaluated=evaluated,
        dropped=site.dropped,
        unusable=site.unusable,
    )
