"""Tell the settings that change a run's figures from those that say where and how fast it is computed. Pure, no IO."""

from collections.abc import Mapping
from typing import Any

from shared.study.declaration import EARLIER_PERFORMANCE
from shared.study.sections import Performance

PRECISION = ("precision", "activation_storage")
"""Keys of [performance] that round otherwise. The others change no bit but `device`, whose kernels differ in a number's
last digits: `auto` does not say which one it was."""
NO_FIGURE = ("engine", "processes")
"""Keys of [simulation] that change no bit."""


def deciding(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scenario without the settings that change no figure, and with the precision that older ones left out."""
    performance, simulation = (section_of(scenario, name) for name in ("performance", "simulation"))
    decided = {key: value for key, value in simulation.items() if key not in NO_FIGURE}
    return {**scenario, "performance": precision_of(performance), "simulation": decided}


def precision_of(performance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what [performance] rounds to, defaults filled in."""
    named = {EARLIER_PERFORMANCE.get(name, name): value for name, value in performance.items()}
    return {name: named.get(name, Performance.model_fields[name].default) for name in PRECISION}


def section_of(scenario: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section; an empty one where it is left out, or is none since somebody else wrote it."""
    section = scenario.get(name)
    return section if isinstance(section, Mapping) else {}
