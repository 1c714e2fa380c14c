"""What a set is trained by: its file, and the planner's suggestions for its rates, from public numbers.

They depend on epsilon: the more noise, the less head and adapter are moved, and the more of the norm the head keeps.
"""

from simulations.benchmarks.quality.sets import Case
from simulations.plan import plan_file
from simulations.scenario import Scenario, load


def as_planned(case: Case) -> Scenario:
    """The case's scenario, with the planner's rates and head share.

    Raises:
        SettingsError: the data set was not fetched.
    """
    planned = plan_file(case.path, None, case.changes, epsilon_limit=None, spent_steps=0)[1]
    head, start = planned.head_start, planned.adapter_start
    if head is None or start is None:
        return case.scenario()
    suggested = [
        f"training.learning_rate={head:.2g}",
        f"training.adapter_learning_rate={start.learning_rate:.2g}",
        f"privacy.head_share={start.head_share:.3g}",
    ]
    return load(case.path, [*case.changes, *suggested])
