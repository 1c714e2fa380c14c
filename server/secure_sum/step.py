"""Makes the next adapter of the opened sum of a round, or refuses a sum that no honest nodes can have made."""

from collections.abc import Callable

import numpy as np

from server.aggregation.opened_sum import Sum, next_adapter, step_numbers, suspicion
from shared.adapted_model.adapters import Layout
from shared.protocol.fixed_point import mean_of
from shared.protocol.messages import Vector
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study

Step = Callable[[int, Sum, int, Vector], Vector]
"""Returns the next adapter, given the round's number, the opened sum, how many nodes it holds, and the adapter sent."""


class SumRefused(Exception):  # noqa: N818 - a round that is lost, and no failure of ours
    """An opened sum that is not used, with the reason."""


def step_of(
    study: Study, layout: Layout, sizes: Callable[[], Thresholds], largest_norm: Callable[[int], float]
) -> Step:
    """Return the step that a study makes of an opened sum.

    Guarantee: masked updates make the adapter that the same updates make without masks, to the last byte.

    Args:
        study: as declared, with a secure sum.
        layout: of the packed adapter.
        sizes: of the run's roster, once it is fixed.
        largest_norm: bound on an honest update, and so on the mean of many, by round number.
    """

    def step(number: int, total: Sum, nodes: int, current: Vector) -> Vector:
        if study.federation.secure_sum == "masked":
            norm, most = float(np.linalg.norm(mean_of(total, nodes))), largest_norm(number)
            if norm > most:
                raise SumRefused("the mean of the updates is longer than noise and clipping can make it")
            return next_adapter(current, total, nodes, None)
        numbers = step_numbers(study, layout, number, sizes())
        if (reason := suspicion(total, nodes, numbers)) is not None:
            raise SumRefused(f"the opened sum cannot be one of honest nodes: {reason}")
        return next_adapter(current, total, nodes, numbers)

    return step
