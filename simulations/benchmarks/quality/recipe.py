"""What a set is trained by: its file, and the planner's suggestions, from public numbers.

Where sites differ in size, they divide by the mean of what they declare. Where noise is low enough to tell in which
directions features vary, the head is whitened. Rates and head share depend on epsilon: the more noise, the less head
and adapter are moved, and the more of the norm the head keeps.
"""

from collections.abc import Sequence

from server.forecast.values import StudyPlan
from simulations.benchmarks.quality.sets import Case
from simulations.experiment.scenario import Scenario, load
from simulations.forecast import plan_file

WHITENED_REFERENCE = (
    "simulation.reference_learning_rate=4.0",
    "simulation.reference_adapter_learning_rate=0.5",
)
"""Rates without privacy, where features are whitened: the best of six pairs on other images (`fashion-choices`)."""


def as_planned(case: Case) -> Scenario:
    """The case's scenario, with the planner's typical size, whitening, rates and head share.

    Raises:
        SettingsError: the data set was not fetched.
    """
    changes, planned = case.changes, _planned(case, case.changes)
    if planned.typical_size.helps:
        changes = [*changes, f"federation.typical_size={planned.typical_size.mean}"]
        planned = _planned(case, changes)
    if case.whitening and planned.whitening is not None and planned.whitening.possible:
        changes = [*changes, "training.whitening=true", *WHITENED_REFERENCE]
        planned = _planned(case, changes)
    head, start = planned.head_start, planned.adapter_start
    if head is None or start is None:
        return load(case.path, changes)
    suggested = [
        f"training.learning_rate={head:.2g}",
        f"training.adapter_learning_rate={start.learning_rate:.2g}",
        f"privacy.head_share={start.head_share:.3g}",
    ]
    return load(case.path, [*changes, *suggested])


def _planned(case: Case, changes: Sequence[str]) -> StudyPlan:
    return plan_file(case.path, None, changes, epsilon_limit=None, spent_steps=0)[1]
