"""Compare a run's evaluations: which adapter is best, and whether further rounds still help. Pure, and no cost.

All it looks at was released through noise and paid for, so whatever is made of it is as private (post-processing).

Rules
1. An evaluation can be compared if the study's quorum of sites sent counts, and its figure stands out of its noise.
2. Figures are compared over the same units: those of the sites that sent counts to every evaluation that is compared.
3. The best has the highest figure; of equal ones it is the later. Below two that can be compared, nothing is chosen.
4. An evaluation improves on what came before if it is better than the last one that did, at first the first one, by
   more than their noise: the lower limit of the difference, of 95 % on both sides, is above 0.
5. After `stop_after` comparable evaluations in a row that do not improve, the run ends.

The best of several noisy figures is flattered by its noise. So its interval is one that holds for all evaluations that
the study declares together, whichever is chosen and whenever the run ends (Bonferroni).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shared.private_evaluation.cells import Cells
from shared.private_evaluation.estimates import quality_of
from shared.private_evaluation.intervals import TAILS, Quantity, Z, deviations, difference
from shared.private_evaluation.noise import sigma
from shared.section import Section
from shared.study.declaration import Study
from shared.study.evaluation import measure_of

Histograms = Mapping[str, NDArray[np.int64]]


class Choice(Section):
    """Which evaluation of a run is best, with an interval that allows for the choice, and whether the run goes on."""

    measure: str
    """By which evaluations are compared."""
    compared: tuple[int, ...]
    """Those that can be, each by the rounds that led to its adapter."""
    of: int
    """Evaluations that the study declares: so many the interval allows for."""
    sites: tuple[str, ...]
    """Over whose units."""
    best: int
    """The best of them."""
    value: float
    """Its figure: the best of several noisy ones, so rather too high."""
    low: float
    """Lower end of its 95 % interval, for whom the units were drawn from, whichever evaluation was chosen."""
    high: float
    """Upper end."""
    low_here: float
    """Lower end of the interval for these very units."""
    high_here: float
    """Upper end."""
    clear: bool
    """Whether it is better than the last one that was compared by more than their noise."""
    hands_out: bool
    """Whether the run hands out the best one's adapter; otherwise the last round's."""
    without_improvement: int
    """Last evaluations in a row that did not improve on what came before by more than their noise."""
    stop_after: int | None
    """How many of these end the run; null if none do."""

    def handed_out(self, last: int) -> int:
        """Return how many rounds led to the adapter that is handed out, of a run whose last round this is."""
        return self.best if self.hands_out else last

    def ends_after(self, number: int) -> bool:
        """Return whether the run ends with this evaluation, which came last."""
        return (
            self.stop_after is not None and number == self.compared[-1] and self.without_improvement >= self.stop_after
        )


def compares(study: Study) -> bool:
    """Return whether a study declares that its evaluations are compared."""
    return study.evaluation is not None and (study.evaluation.keep == "best" or study.evaluation.stop_after is not None)


def choose(study: Study, released: Mapping[int, Histograms]) -> Choice | None:
    """Compare the evaluations of a run that are over; None if the study declares no comparison, or there is none.

    Guarantee: the same released counts make the same choice, whenever and however often it is made.
    Guarantee: the interval of the best holds its figure in at least 95 of 100 runs, whichever evaluation is chosen.

    Args:
        study: as declared.
        released: noisy counts by site, by the rounds that led to the adapter.
    """
    evaluation = study.evaluation
    if evaluation is None or not compares(study):
        return None
    measure = measure_of(evaluation, study.task)
    figures, sites = _comparable(study, released, measure)
    if len(figures) < 2:
        return None
    numbers = sorted(figures)
    best = max(numbers, key=lambda number: (float(figures[number].estimate), number))
    z = deviations(TAILS / len(study.evaluated_after))
    drawn, here = (figures[best].interval(sampling=sampling, z=z) for sampling in (True, False))
    return Choice(
        measure=measure,
        compared=tuple(numbers),
        of=len(study.evaluated_after),
        sites=sites,
        best=best,
        value=float(figures[best].estimate),
        low=float(drawn.low),
        high=float(drawn.high),
        low_here=float(here.low),
        high_here=float(here.high),
        clear=_improves(figures[best], figures[numbers[-1]]),
        hands_out=evaluation.keep == "best",
        without_improvement=_without_improvement([figures[number] for number in numbers]),
        stop_after=evaluation.stop_after,
    )


def _comparable(
    study: Study, released: Mapping[int, Histograms], measure: str
) -> tuple[dict[int, Quantity], tuple[str, ...]]:
    """Return the figures that can be compared, and over whose units."""
    answered = {number: own for number, own in released.items() if len(own) >= study.federation.quorum}
    sites = sorted(set.intersection(*map(set, answered.values()))) if answered else []
    if not sites:
        return {}, ()
    cells, noise = Cells.of(study), sigma(study)
    figures = {
        number: quality_of(cells, {site: own[site] for site in sites}, noise)[measure]
        for number, own in answered.items()
    }
    return {number: figure for number, figure in figures.items() if figure.shown}, tuple(sites)


def _without_improvement(figures: Sequence[Quantity]) -> int:
    before, count = figures[0], 0
    for figure in figures[1:]:
        before, count = (figure, 0) if _improves(figure, before) else (before, count + 1)
    return count


def _improves(figure: Quantity, before: Quantity) -> bool:
    # the units are the same, so only noise tells two evaluations of one adapter apart
    return float(difference(figure, before, sampling=False, z=Z).low) > 0
