"""Say how precise a study's evaluation will be, before anybody agrees to it: from public numbers alone.

The sites' counts are put in at what is expected of a model that is right in `TYPICAL` of all cases, without noise; what
`estimates` then makes of them, with its intervals, is what size, cells and epsilon give.
"""

import numpy as np
from numpy.typing import NDArray

from shared.private_evaluation.cells import RIGHT, STEPS, Cells
from shared.private_evaluation.estimates import Estimate, estimates_of_sum, quality_of
from shared.private_evaluation.intervals import TAILS, Z, deviations, difference
from shared.private_evaluation.noise import sigma, summed_noise
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study
from shared.study.evaluation import measure_of

TYPICAL = 0.8
"""Share of right answers that is put in; near a half intervals are wider by a quarter, near 1 narrower."""
HELD_OUT = 0.1
"""Share of its units that a node holds out unless its node.toml says otherwise."""


def expected_estimates(
    study: Study, held_out: float, *, sites: int = 1, sizes: Thresholds | None = None
) -> tuple[Estimate, ...]:
    """Return the estimates that sites would come to, together.

    Args:
        study: with an evaluation.
        held_out: units that all of them hold out.
        sites: how many add their noise.
        sizes: of the run's roster, where they share it.

    Raises:
        BudgetError: no practical noise is enough.
    """
    cells = Cells.of(study)
    return estimates_of_sum(cells, _expected(cells, held_out), summed_noise(study, sites, sizes))


def expected_choice(study: Study, held_out: float, *, sites: int = 1) -> tuple[float, float] | None:
    """Return half the length of the interval of a best evaluation, and the least improvement that stands out of noise.

    Args:
        study: whose evaluations are compared.
        held_out: units that all sites hold out.
        sites: how many add their noise.

    Returns:
        None where nothing would be shown.

    Raises:
        BudgetError: no practical noise is enough.
    """
    evaluation, cells = study.evaluation, Cells.of(study)
    assert evaluation is not None  # noqa: S101 - Cells.of refuses a study without one
    figures = quality_of(cells, {"": _expected(cells, held_out)}, sigma(study) * sites**0.5)
    figure = figures[measure_of(evaluation, study.task)]
    if not figure.shown:
        return None
    chosen = figure.interval(sampling=True, z=deviations(TAILS / len(study.evaluated_after)))
    return float(chosen.high - chosen.low) / 2, float(difference(figure, figure, sampling=False, z=Z).high)


def half_width(estimate: Estimate) -> float | None:
    """Return half the length of the interval that covers noise and the draw of units; None where nothing is shown."""
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2


def _expected(cells: Cells, units: float) -> NDArray[np.int64]:
    """Return the counts of units that are spread evenly over groups, labels and bins."""
    shape = cells.shape
    own = np.ones(shape[1:])
    if cells.kind == "confusion":
        labels = shape[1]
        own = np.full((labels, labels), (1 - TYPICAL) / (labels - 1))
        np.fill_diagonal(own, TYPICAL)
    elif cells.kind == "right-wrong" or len(shape) == 3:
        own[..., RIGHT], own[..., 1 - RIGHT] = TYPICAL, 1 - TYPICAL
    histogram: NDArray[np.int64] = np.round(np.broadcast_to(own / own.sum() * units / shape[0], shape) * STEPS).astype(
        np.int64
    )
    return histogram.ravel()
