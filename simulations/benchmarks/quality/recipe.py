"""The recipe of a set: its file, and what the planner suggests from public numbers.

Where sites differ in size, they divide by the mean of what they declare. Where noise is low enough to tell in which
directions features vary, the head is whitened. Rates and head share depend on epsilon: the more noise, the less head
and adapter are moved, and the more of the norm the head keeps.
"""

from collections.abc import Sequence

from server.forecast.values import StudyForecast
from simulations.benchmarks.quality.sets import Case
from simulations.experiment.scenario import Scenario, load
from simulations.forecast import plan_file

WHITENED_REFERENCE = (
    "simulation.reference=unclipped",
    "simulation.reference_learning_rate=4.0",
    "simulation.reference_adapter_learning_rate=0.5",
)
"""Rates without privacy, where features are whitened: the best of six pairs on other images (`fashion-choices`)."""


def as_planned(case: Case) -> Scenario:
    """Return the case's scenario with the planner's typical size, whitening, rates and head share.

    Raises:
        SettingsError: the data set was not fetched.
    """
    changes, forecast = case.changes, _forecast(case, case.changes)
    if forecast.typical_size.helps:
        changes = [*changes, f"federation.typical_size={forecast.typical_size.mean}"]
        forecast = _forecast(case, changes)
    if case.whitening and forecast.whitening is not None and forecast.whitening.possible:
        changes = [*changes, "training.whitening=true", *WHITENED_REFERENCE]
        forecast = _forecast(case, changes)
    head, start = forecast.head_start, forecast.adapter_start
    if head is None or start is None:
        return load(case.path, changes)
    suggested = [
        f"training.learning_rate={head:.2g}",
        f"training.adapter_learning_rate={start.learning_rate:.2g}",
        f"privacy.head_share={start.head_share:.3g}",
    ]
    return load(case.path, [*changes, *suggested])


def _forecast(case: Case, changes: Sequence[str]) -> StudyForecast:
    return plan_file(case.path, None, changes, epsilon_limit=None, spent_steps=0).forecast
