"""Describe a study's steps, and the parts of the model that they move, for comparing signal and noise."""

import math
from collections.abc import Iterable

from shared.adapted_model.measured import head_rate, is_measured
from shared.errors import BudgetError
from shared.privacy.noise_schedule import NoiseSchedule, schedule_of
from shared.privacy.signal_to_noise import Batch, Part, Steps, ratio
from shared.study.declaration import Study
from shared.study.schedule import learning_rate_factors, round_factors


def part_name(tensor: str) -> str:
    """Return the part of the model that a trained tensor belongs to: head, adapter, or measured moments."""
    if is_measured(tensor):
        return "moments"
    return "head" if tensor.startswith("head.") else "adapter"


def parts_of(study: Study, tensors: Iterable[tuple[str, tuple[int, ...]]]) -> list[Part]:
    """Return head and adapter, in this order, as far as they are among the trained tensors (names and shapes)."""
    dimension = {"head": 0, "adapter": 0}
    for name, shape in tensors:
        if (part := part_name(name)) in dimension:
            dimension[part] += math.prod(shape)
    rates = {"head": study.training.learning_rate, "adapter": study.training.adapter_learning_rate}
    share, shares = study.privacy.head_share, dict[str, float]()
    if share is not None and all(dimension.values()):
        shares = {"head": share, "adapter": 1 - share}
    return [Part(name, rates[name], size, shares.get(name)) for name, size in dimension.items() if size]


def parts_in(study: Study, tensors: Iterable[tuple[str, tuple[int, ...]]], number: int) -> list[Part]:
    """Return the parts that a round moves: head and adapter, or the moments that it measures."""
    if not study.measures(number):
        return parts_of(study, tensors)
    dimension = sum(math.prod(shape) for name, shape in tensors if is_measured(name))
    return [Part("moments", head_rate(study, number), dimension)]


def batch_of(study: Study, declared_size: int) -> Batch:
    """Return the batch of a site of this declared size."""
    rate = study.privacy.sampling_rate
    return Batch(rate * declared_size, rate * study.federation.divisor_size(declared_size))


def round_steps(study: Study, schedule: NoiseSchedule, batch: Batch, number: int) -> Steps:
    """Return the steps of one round."""
    return Steps(round_factors(study, number), schedule.noise_multiplier, schedule.clip_norm, batch)


def all_steps(study: Study, schedule: NoiseSchedule, batch: Batch) -> Steps:
    """Return the steps of a whole study, except those that only measure."""
    training = study.total_steps - study.measuring_rounds * study.training.local_steps
    factors = learning_rate_factors(round_number=1, local_steps=training, rounds=1)
    return Steps(factors, schedule.noise_multiplier, schedule.clip_norm, batch)


def ratio_with(study: Study, part: Part, mean: Batch, *, epsilon: float, sampling_rate: float, rounds: int) -> float:
    """Return a part's ratio of longest signal to noise over a changed study; 0 if no practical noise is enough.

    Args:
        study: as declared.
        part: head or adapter.
        mean: batch of the mean over nodes, as declared.
        epsilon: replaces the study's.
        sampling_rate: replaces the study's.
        rounds: replaces the study's.
    """
    privacy = study.privacy.model_copy(update={"epsilon": epsilon, "sampling_rate": sampling_rate})
    federation = study.federation.model_copy(update={"rounds": rounds})
    changed = study.model_copy(update={"privacy": privacy, "federation": federation})
    factor = sampling_rate / study.privacy.sampling_rate
    try:
        schedule = schedule_of(changed)
    except BudgetError:
        return 0.0
    return ratio([part], all_steps(changed, schedule, Batch(factor * mean.units, factor * mean.divisor)))
