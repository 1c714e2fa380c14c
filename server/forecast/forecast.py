"""Forecasts what a study will cost and whether it will learn, before anybody spends budget on it."""

import math
from collections.abc import Sequence
from dataclasses import replace

from server.aggregation.method import method_for
from server.forecast.evaluation import forecast_evaluation
from server.forecast.rejected_rounds import rejected_rounds
from server.forecast.values import NodeForecast, PartForecast, StudyForecast, TypicalSize
from server.forecast.whitening import forecast_whitening, head_start_of
from shared.adapted_model.adapters import Layout
from shared.checks import at_least
from shared.errors import SettingsError
from shared.privacy.accounting import epsilon_prv
from shared.privacy.collusion import collusion
from shared.privacy.cost_by_round import epsilon_by_round, rounds_afforded
from shared.privacy.noise_schedule import NoiseSchedule, declared_size, schedule_of
from shared.privacy.releases import SharedGaussian
from shared.privacy.signal_to_noise import (
    AdapterStart,
    Batch,
    Part,
    Steps,
    adapter_start,
    head_rate,
    mean_batch,
    noise_length,
    prospect,
    ratio,
)
from shared.privacy.study_steps import all_steps, batch_of, parts_of, ratio_with, round_steps
from shared.private_evaluation.noise import all_counts
from shared.private_evaluation.precision import HELD_OUT
from shared.protocol.update_encoding import packed_bytes
from shared.study.declaration import LINEAR_HEAD_KINDS, Study
from shared.study.secure_sum import check_secure_sum, sum_sizes
from shared.study.tasks import FEATURE_NORM


def forecast_study(
    study: Study, layout: Layout, sizes: dict[str, int], *, epsilon_limit: float | None = None, spent_steps: int = 0
) -> StudyForecast:
    """Forecast a study for nodes of these declared sizes.

    Args:
        study: as declared.
        layout: of the trained tensors.
        sizes: declared size by name; rounded to two digits, as their operators would declare them.
        epsilon_limit: the most that a node's dataset may ever spend; default: what the study costs.
        spent_steps: of this study's own kind, that the ledger holds already.

    Raises:
        SettingsError: no node is large enough, or the server cannot combine updates as the study says.
        BudgetError: no practical noise is enough for the study's epsilon.
    """
    at_least(0, spent_steps=spent_steps)
    method = method_for(study)
    joining = _joining(study, sizes)
    schedule, parts = schedule_of(study), parts_of(study, layout.tensors)
    limit = study.privacy.epsilon if epsilon_limit is None else epsilon_limit
    asked = min(study.federation.cohort or len(joining), len(joining))
    mean = _mean(study, [*joining.values()], asked)
    steps = all_steps(study, schedule, mean)
    by_part = [PartForecast(p.name, p.dimension, p.learning_rate, ratio([p], steps)) for p in parts]
    plain_head = _head_start(study, parts, steps)
    rounds, local_steps = study.federation.rounds, study.training.local_steps
    up, down = packed_bytes(layout.length, study.sent_as), packed_bytes(layout.length, "float32")
    return StudyForecast(
        study_sha256=study.sha256,
        noise_multiplier=schedule.noise_multiplier,
        sampling_rate=schedule.sampling_rate,
        steps=schedule.steps,
        rounds=rounds,
        delta=schedule.delta,
        unit=schedule.unit,
        epsilon_by_round=epsilon_by_round(schedule, rounds=rounds, local_steps=local_steps),
        epsilon_prv=epsilon_prv([schedule.release(schedule.steps)], schedule.delta),
        epsilon_limit=limit,
        spent_steps=spent_steps,
        rounds_afforded=rounds_afforded(schedule, local_steps=local_steps, limit=limit, spent_steps=spent_steps),
        bytes_up_per_round=up,
        bytes_down_per_round=down,
        bytes_total=(up + down) * rounds,
        mean_update_ratio=ratio(parts, round_steps(study, schedule, mean, 1 + study.measuring_rounds)),
        parts=by_part,
        head_start=head_start_of(study, plain_head),
        adapter_start=_adapter_start(parts, by_part, plain_head),
        typical_size=_typical_size(study, [*joining.values()], mean, asked),
        whitening=forecast_whitening(study, layout, schedule, mean),
        gain_of_twice_the_rounds=_gain_of_twice_the_rounds(study, parts[0], mean, by_part[0].study_ratio),
        nodes=_nodes(study, layout, schedule, joining),
        left_out=[name for name in sizes if name not in joining],
        quorum=study.federation.quorum,
        asked_per_round=asked,
        shared_noise=_shared_noise(study, len(joining)),
        gain_of_shared_noise=_gain_of_shared_noise(study, [*joining.values()]),
        prospect=prospect(by_part[0].study_ratio, of_head=by_part[0].name == "head"),
        method=method.changes,
    )


def with_evaluation(forecast: StudyForecast, study: Study, held_out: float = HELD_OUT) -> StudyForecast:
    """Return a forecast with that of the study's private evaluation, if it declares one.

    Args:
        forecast: of the study.
        study: as declared.
        held_out: units that nodes hold out, for each that they declare.

    Raises:
        BudgetError: no practical noise is enough.
    """
    sizes = {node.name: node.declared_size for node in forecast.nodes}
    return replace(forecast, evaluation=forecast_evaluation(study, sizes, held_out))


def _mean(study: Study, sizes: Sequence[int], asked: int) -> Batch:
    """Return the batch of one node whose update would have the signal and the noise of the mean over these nodes."""
    batches = [batch_of(study, size) for size in sizes]
    if study.federation.secure_sum == "shared":
        # each adds the h-th part of the noise's variance, unscaled, to a sum that is divided by one public size
        quiet = math.sqrt(sum_sizes(len(sizes), study.federation).honest)
        divisor = quiet * study.privacy.sampling_rate * (study.federation.typical_size or 1)
        batches = [Batch(batch.weight * divisor, divisor) for batch in batches]
    return mean_batch(batches, asked=asked)


def _shared_noise(study: Study, nodes: int) -> str:
    release = schedule_of(study).release(study.total_steps)
    if not isinstance(release, SharedGaussian):
        return ""
    sizes = sum_sizes(nodes, study.federation)
    settled = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
    promise = collusion(settled, study.privacy.delta, all_counts(study))
    return promise.in_words


def _gain_of_shared_noise(study: Study, sizes: Sequence[int]) -> float | None:
    federation = study.federation
    typical = federation.typical_size or declared_size(round(sum(sizes) / len(sizes)))
    shared, own = (
        study.model_copy(update={"federation": federation.model_copy(update=changes)})
        for changes in ({"secure_sum": "shared", "typical_size": typical}, {"secure_sum": None})
    )
    training = study.training.model_copy(update={"local_steps": 1})
    try:
        check_secure_sum(shared.federation, study.adapter, training)
        sum_sizes(len(sizes), shared.federation)
    except (SettingsError, ValueError):
        return None
    return _mean(shared, sizes, len(sizes)).units / _mean(own, sizes, len(sizes)).units


def _joining(study: Study, sizes: dict[str, int]) -> dict[str, int]:
    """Return the declared sizes of the nodes that are large enough."""
    smallest = study.federation.smallest_declared_size
    declared = {name: declared_size(size) for name, size in sizes.items()}
    joining = {name: size for name, size in declared.items() if size >= smallest}
    if not joining:
        raise SettingsError(
            f"Expected a site of at least federation.smallest_declared_size={smallest}, got {list(declared.values())}."
        )
    return joining


def _head_start(study: Study, parts: Sequence[Part], steps: Steps) -> float | None:
    one_label = (
        study.task.kind in LINEAR_HEAD_KINDS and getattr(study.task, "problem", "single-label") == "single-label"
    )
    return head_rate(steps, feature_length=FEATURE_NORM) if one_label and parts[0].name == "head" else None


def _adapter_start(parts: Sequence[Part], by_part: Sequence[PartForecast], head: float | None) -> AdapterStart | None:
    if len(parts) < 2:
        return None
    return adapter_start(head or parts[0].learning_rate, by_part[1].study_ratio, parts[1].share)


def _typical_size(study: Study, sizes: Sequence[int], mean: Batch, asked: int) -> TypicalSize:
    typical = declared_size(round(sum(sizes) / len(sizes)))
    changed = study.model_copy(update={"federation": study.federation.model_copy(update={"typical_size": typical})})
    with_it = _mean(changed, sizes, asked)
    return TypicalSize(typical, gain=with_it.units / mean.units)


def _gain_of_twice_the_rounds(study: Study, part: Part, mean: Batch, now: float) -> float | None:
    as_declared = {"epsilon": study.privacy.epsilon, "sampling_rate": study.privacy.sampling_rate}
    longer = ratio_with(study, part, mean, **as_declared, rounds=2 * study.federation.rounds)
    return longer / now if longer else None


def _nodes(study: Study, layout: Layout, schedule: NoiseSchedule, joining: dict[str, int]) -> list[NodeForecast]:
    parts = parts_of(study, layout.tensors)
    # sizes have two digits, so even thousands of sites have few different ones
    rejected = {size: len(rejected_rounds(study, layout, declared=size)) for size in set(joining.values())}
    nodes = []
    for name, declared in joining.items():
        batch = batch_of(study, declared)
        first = round_steps(study, schedule, batch, 1 + study.measuring_rounds)
        node = NodeForecast(
            name=name,
            declared_size=declared,
            expected_batch=batch.units,
            divisor=batch.divisor,
            update_ratio=ratio(parts, first),
            study_ratio=ratio(parts[:1], all_steps(study, schedule, batch)),
            noise_length=noise_length(parts, first),
            rounds_rejected=rejected[declared],
        )
        nodes.append(node)
    return nodes


def read_sizes(text: str) -> dict[str, int]:
    """Read declared sizes as typed, `3700,4200`; nodes are numbered.

    Raises:
        SettingsError: not a list of whole numbers above zero.
    """
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise SettingsError(
            f"Expected whole numbers with commas between, got --sizes {text!r}.", hint="--sizes 3700,4200"
        )
    return {f"node {place}": int(number) for place, number in enumerate(numbers, start=1)}
