"""What would let a study learn, each change by itself and with its number.

A change that helps and is not enough by itself says so.
"""

import math
from collections.abc import Callable

from server.forecast.values import StudyPlan
from shared.privacy.signal_to_noise import (
    LEARNS_LITTLE,
    Batch,
    Part,
    least_that_helps,
    mean_batch,
)
from shared.privacy.study_steps import ratio_with
from shared.study.declaration import Study

LARGEST_EPSILON, MOST_ROUNDS, MOST_STEPS = 100.0, 10_000, 100_000
WORTH_SAYING = 1.1
NOT_ENOUGH = "not enough by itself"


def remedies(study: Study, planned: StudyPlan) -> list[str]:
    """Changes of the study that bring its deciding part to where it learns well, or nearer; nothing if it is there.

    Learning rates are not among them: they make signal and noise longer alike.
    """
    times = LEARNS_LITTLE / planned.ratio
    if times <= 1:
        return []
    part = planned.parts[0]
    fewer = max(1, int(part.dimension / times**2))
    how = "adapter.rank, adapter.layers" if part.name == "adapter" else "fewer labels; a smaller base model"
    found = [
        f"records: {times:.1f} times as many at every site, or {times**2:.1f} times as many such sites in a round",
        f"trained entries of the {part.name}: at most {fewer} instead of {part.dimension} ({how})",
    ]
    return [*found, *_settings(study, planned), *_typical_size(planned), *_without_small_sites(planned)]


def _settings(study: Study, planned: StudyPlan) -> list[str]:
    batches = [Batch(node.expected_batch, node.divisor) for node in planned.nodes]
    mean = mean_batch(batches, asked=planned.asked_per_round)
    first, both = planned.parts[0], len(planned.parts) == 2
    part = Part(first.name, first.learning_rate, first.dimension, study.privacy.head_share if both else None)

    def at(epsilon: float, rate: float, rounds: int) -> float:
        return ratio_with(study, part, mean, epsilon=epsilon, sampling_rate=rate, rounds=rounds)

    epsilon, rate, rounds = study.privacy.epsilon, study.privacy.sampling_rate, study.federation.rounds
    most_rounds = max(rounds, min(MOST_ROUNDS, MOST_STEPS // study.training.local_steps))
    enough: list[tuple[str, Callable[[float], float], float, float]] = [
        ("privacy.epsilon", lambda value: at(value, rate, rounds), epsilon, LARGEST_EPSILON),
        ("privacy.sampling_rate", lambda value: at(epsilon, value, rounds), rate, 1.0),
        ("federation.rounds", lambda value: at(epsilon, rate, math.ceil(value)), float(rounds), float(most_rounds)),
    ]
    found = []
    for name, ratio_at, low, high in enough:
        value = least_that_helps(ratio_at, low=low, high=high)
        if value is not None:
            shown = math.ceil(value) if name == "federation.rounds" else f"{math.ceil(value * 100) / 100:g}"
            found.append(f"{name}: {shown} instead of {low:g}")
        elif name != "privacy.epsilon" and ratio_at(high) > WORTH_SAYING * planned.ratio:
            gain = ratio_at(high) / planned.ratio
            found.append(f"{name}: {high:g} instead of {low:g} gives {gain:.1f} times the ratio, {NOT_ENOUGH}")
    return found


def _typical_size(planned: StudyPlan) -> list[str]:
    size, gain = planned.typical_size.mean, planned.typical_size.gain
    if gain < WORTH_SAYING:
        return []
    enough = "" if gain * planned.ratio >= LEARNS_LITTLE else f", {NOT_ENOUGH}"
    return [f"federation.typical_size: {size} gives {gain:.1f} times the ratio{enough}: small sites add less noise"]


def _without_small_sites(planned: StudyPlan) -> list[str]:
    best, gain = planned.quietest(least=planned.quorum)
    if gain < WORTH_SAYING:
        return []
    left = f"federation.smallest_declared_size: {best[-1].declared_size} leaves {len(best)} sites"
    enough = "" if gain * planned.ratio >= LEARNS_LITTLE else f", {NOT_ENOUGH}"
    why = "a small site adds as much noise as a large one"
    return [f"{left}, whose mean has {gain:.1f} times the ratio{enough}: {why}"]
