"""A run's settings and figures as plain values, for where people keep their curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shared.private_evaluation.estimates import HIGHER_IS_BETTER, Estimate, Evaluated

Ending = Literal["running", "finished", "failed", "stopped"]
OVER_SITES = ("all sites", "worst site")


@dataclass(frozen=True)
class Curves:
    """A run at some point, whole: whoever has an earlier part of it receives the rest."""

    key: str
    """Names the run for ever; of a simulation, its result folder and study."""
    name: str
    """For people."""
    params: Mapping[str, str]
    """Settings by dotted name."""
    tags: Mapping[str, str]
    """Figures that a run has one of, such as every node's epsilon."""
    rounds: Mapping[int, Mapping[str, float]]
    """Metrics by round, then name."""
    ending: Ending = "running"
    artifacts: tuple[Path, ...] = field(default=())
    """Files and folders, sent once the run is finished."""
    also: tuple[Path, ...] = field(default=())
    """Further ones that somebody names, sent whenever they are named."""
    evaluations: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """What private evaluations that are over have shown, by the rounds before it, then name."""


def flattened(values: Mapping[str, Any], section: str = "") -> dict[str, str]:
    """Return nested settings by dotted name, each as text."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{section}{name}.")
        else:
            flat[f"{section}{name}"] = str(value)
    return flat


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return what can be drawn of some metrics: finite numbers."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def of_evaluations(evaluations: Sequence[Evaluated]) -> dict[int, dict[str, float]]:
    """Return how good the adapter was at all sites and at the worst, with its interval, by the rounds before it.

    What was not shown, since it rests on noise, is no point of a curve. Single sites and subgroups stand in the report.
    """
    return {one.number: shown for one in evaluations if (shown := _shown(one.estimates))}


def _shown(estimates: Sequence[Estimate]) -> dict[str, float]:
    over_sites = [one for one in estimates if one.scope in OVER_SITES and one.measure in HIGHER_IS_BETTER]
    ends = [
        (f"private/{one.scope}/{one.measure}{end}", value)
        for one in over_sites
        for end, value in (("", one.value), ("/low", one.low), ("/high", one.high))
    ]
    return finite(dict(ends))
