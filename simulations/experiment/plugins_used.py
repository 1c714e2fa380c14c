"""Names the plug-ins that a scenario uses, for whatever is recorded of its run."""

from server.aggregation.method import method_for
from server.plugins.packages import PARTITIONERS, plugin
from shared.evidence.facts import PluginUse
from simulations.experiment.partition_kinds import ByPlugin
from simulations.experiment.scenario import Scenario


def plugins_used(scenario: Scenario, *, splits: bool) -> list[PluginUse]:
    """Return the plug-ins that a run of a scenario is about to use, as they are installed now.

    Args:
        scenario: as declared.
        splits: whether rows are still to be dealt out.

    Raises:
        SettingsError: one is not installed.
    """
    aggregation, how = method_for(scenario).plugin, scenario.simulation.data.partition
    plugins = [] if aggregation is None else [aggregation]
    if splits and isinstance(how, ByPlugin):
        plugins.append(plugin(PARTITIONERS, how.name))
    return [one.use for one in plugins]
