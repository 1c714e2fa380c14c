"""Suggests changes that would let a study learn, each by itself and with its number.

A change that helps and is not enough by itself says so.
"""

import math
from collections.abc import Callable

from server.forecast.values import StudyForecast
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


def suggest(study: Study, forecast: StudyForecast) -> list[str]:
    """Return changes that bring the study's deciding part to where it learns well, or nearer; none if it is there.

    Learning rates are not among them: they lengthen signal and noise alike.
    """
    times = LEARNS_LITTLE / forecast.ratio
    if times <= 1:
        return []
    part = forecast.parts[0]
    fewer = max(1, int(part.dimension / times**2))
    how = "adapter.rank, adapter.layers" if part.name == "adapter" else "fewer labels; a smaller base model"
    sites = f"{times**2:.1f} times as many such sites in a round"
    sizes = [
        f"{forecast.unit}s: {times:.1f} times as many at every site, or {sites}",
        f"trained entries of the {part.name}: at most {fewer} instead of {part.dimension} ({how})",
    ]
    of_sites = [*_typical_size(forecast), *_shared(forecast), *_without_small_sites(forecast)]
    return [*sizes, *_settings(study, forecast), *of_sites]


def _settings(study: Study, forecast: StudyForecast) -> list[str]:
    batches = [Batch(node.expected_batch, node.divisor) for node in forecast.nodes]
    mean = mean_batch(batches, asked=forecast.asked_per_round)
    first, both = forecast.parts[0], len(forecast.parts) == 2
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
    suggestions = []
    for name, ratio_at, low, high in enough:
        value = least_that_helps(ratio_at, low=low, high=high)
        if value is not None:
            shown = math.ceil(value) if name == "federation.rounds" else f"{math.ceil(value * 100) / 100:g}"
            suggestions.append(f"{name}: {shown} instead of {low:g}")
        elif name != "privacy.epsilon" and ratio_at(high) > WORTH_SAYING * forecast.ratio:
            gain = ratio_at(high) / forecast.ratio
            suggestions.append(f"{name}: {high:g} instead of {low:g} gives {gain:.1f} times the ratio, {NOT_ENOUGH}")
    return suggestions


def _typical_size(forecast: StudyForecast) -> list[str]:
    size, gain = forecast.typical_size.mean, forecast.typical_size.gain
    if gain < WORTH_SAYING:
        return []
    enough = "" if gain * forecast.ratio >= LEARNS_LITTLE else f", {NOT_ENOUGH}"
    return [f"federation.typical_size: {size} gives {gain:.1f} times the ratio{enough}: small sites add less noise"]


def _shared(forecast: StudyForecast) -> list[str]:
    gain = forecast.gain_of_shared_noise
    if forecast.shared_noise or gain is None or gain < WORTH_SAYING:
        return []
    enough = "" if gain * forecast.ratio >= LEARNS_LITTLE else f", {NOT_ENOUGH}"
    how = "one noise for all sites, in rounds of one step and with a typical size"
    return [f"federation.secure_sum: shared gives {gain:.1f} times the ratio{enough}: {how}"]


def _without_small_sites(forecast: StudyForecast) -> list[str]:
    best, gain = forecast.quietest(least=forecast.quorum)
    if gain < WORTH_SAYING:
        return []
    left = f"federation.smallest_declared_size: {best[-1].declared_size} leaves {len(best)} sites"
    enough = "" if gain * forecast.ratio >= LEARNS_LITTLE else f", {NOT_ENOUGH}"
    why = "a small site adds as much noise as a large one"
    return [f"{left}, whose mean has {gain:.1f} times the ratio{enough}: {why}"]
