"""Finds the plug-ins that took part in a run, in the run's records."""

from collections.abc import Iterable, Sequence

from server.run_store.values import Event
from shared.evidence.facts import PluginUse

PLUGIN = "plug-in"
"""Kind of the event."""


def plugins_of(events: Iterable[Event]) -> tuple[PluginUse, ...]:
    """Return the plug-ins that a run used, in order; more than one where it went on with another version."""
    return tuple(PluginUse.model_validate(event.body) for event in events if event.kind == PLUGIN)


def section(plugins: Sequence[PluginUse]) -> list[str]:
    """Return a card's section on plug-ins; none if there were none."""
    if not plugins:
        return []
    lines = "\n".join(f"* {one.in_words}" for one in plugins)
    return [f"## Code of other packages\n\nFedVault itself is not all that made this adapter:\n\n{lines}"]
