"""A run's settings and figures as plain values, for where people keep their curves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Ending = Literal["running", "finished", "failed", "stopped"]


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
