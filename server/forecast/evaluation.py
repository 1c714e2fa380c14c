"""Forecasts how precise a private evaluation will be: from its epsilon, its cells and the nodes' sizes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.private_evaluation.choice import compares
from shared.private_evaluation.estimates import CALIBRATION, UNITS, Estimate
from shared.private_evaluation.noise import sigma, summed_noise
from shared.private_evaluation.precision import TYPICAL, expected_choice, expected_estimates, half_width
from shared.study.declaration import Study
from shared.study.evaluation import CellKind, has_one_label, measure_of
from shared.study.secure_sum import sum_sizes

KINDS: tuple[CellKind, ...] = ("right-wrong", "confusion", "scores")


@dataclass(frozen=True)
class EvaluationForecast:
    """The forecast for a private evaluation, if the model is right in eight of ten cases."""

    epsilon: float
    """Of all its releases, for a unit that is held out."""
    releases: int
    sigma: float
    """Standard deviation of the noise on each count of a node, in units; of the sum, where that alone is opened."""
    held_out: float
    """Units that are held out, for each that is declared."""
    estimates: tuple[Estimate, ...]
    """Of all nodes together, with the intervals to expect; one without value would not be shown."""
    by_size: dict[int, float | None]
    """Half the length of one node's interval, by its declared size; None where nothing is shown, as in one sum."""
    by_cells: dict[str, float | None]
    """Half the length of all nodes' interval, by what a study of this task may count; None where nothing is shown."""
    choice: str = ""
    """What follows from comparing its evaluations, in words; empty if the study does not."""
    one_sum: bool = False
    """Whether only the sum of the nodes' counts is opened."""

    def of_node(self, declared_size: int) -> str:
        """Return half the length of a node's interval, in words."""
        if self.one_sum:
            return "only in the sum"
        return _plus_minus(self.by_size[declared_size])

    def in_words(self) -> str:
        """Return what a study's operators are to know before they agree."""
        measure = next(one.measure for one in self.estimates if one.measure != UNITS)
        others = ", ".join(f"{kind} {_plus_minus(width)}" for kind, width in self.by_cells.items())
        times = "once" if self.releases == 1 else f"{self.releases} times"
        gap = _main(self.estimates, "gap")
        by_group = f"; gap of subgroups {_in_words(gap)}" if gap is not None else ""
        noise = f"noise of {self.sigma:.3g} on each count"
        noise += " of the sum, which alone is opened" if self.one_sum else ""
        return (
            f"{times}, epsilon {self.epsilon:g} for units held out, {noise}; {measure} "
            f"of all nodes {_in_words(_main(self.estimates, 'all sites'))}{by_group} (95 %, at {TYPICAL:g} right and "
            f"{self.held_out:.2g} held out for each declared); by what is counted: {others}"
            f"{self.choice}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self)) | {"estimates": [one.model_dump() for one in self.estimates]}


def forecast_evaluation(study: Study, sizes: Mapping[str, int], held_out: float) -> EvaluationForecast | None:
    """Forecast a study's private evaluation; None for one without.

    Args:
        study: as declared.
        sizes: declared, by node.
        held_out: units that are held out, for each that is declared.

    Raises:
        BudgetError: no practical noise is enough.
        SettingsError: a secure sum of so many nodes does not go with the study.
    """
    if study.evaluation is None:
        return None
    units, nodes, summed = held_out * sum(sizes.values()), len(sizes), study.federation.secure_sum is not None
    roster = sum_sizes(nodes, study.federation) if summed else None
    by_cells = dict[str, float | None]()
    for kind in KINDS if has_one_label(study.task) else (study.evaluation.cells,):
        other = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"cells": kind})})
        by_cells[kind] = _width(_main(expected_estimates(other, units, sites=nodes, sizes=roster), "all sites"))
    return EvaluationForecast(
        epsilon=study.evaluation.epsilon,
        releases=len(study.evaluated_after),
        sigma=summed_noise(study, nodes, roster) if summed else sigma(study),
        held_out=held_out,
        estimates=expected_estimates(study, units, sites=nodes, sizes=roster),
        # sizes have two digits, so even thousands of sites have few different ones
        by_size={
            size: None if summed else _width(_main(expected_estimates(study, held_out * size), "all sites"))
            for size in set(sizes.values())
        },
        by_cells=by_cells,
        choice=_choice(study, units, nodes),
        one_sum=summed,
    )


def _choice(study: Study, units: float, nodes: int) -> str:
    evaluation = study.evaluation
    if evaluation is None or not compares(study):
        return ""
    measure, expected = measure_of(evaluation, study.task), expected_choice(study, units, sites=nodes)
    if expected is None:
        return "; evaluations are not compared, as nothing would be shown: the last round's adapter is handed out"
    chosen, improvement = expected
    best = f"; the best of them by {measure} is handed out, known to ± {chosen:.3f} as one of several"
    ends = (
        f"; the run ends after {evaluation.stop_after} in a row that are not better by about {improvement:.3f}, which "
        "is what stands out of their noise"
    )
    return (best if evaluation.keep == "best" else "") + (ends if evaluation.stop_after is not None else "")


def _main(estimates: tuple[Estimate, ...], scope: str) -> Estimate | None:
    rows = [one for one in estimates if one.scope == scope]
    return next((one for one in rows if one.measure not in (UNITS, CALIBRATION)), None)


def _in_words(estimate: Estimate | None) -> str:
    return _plus_minus(_width(estimate))


def _width(estimate: Estimate | None) -> float | None:
    return None if estimate is None else half_width(estimate)


def _plus_minus(width: float | None) -> str:
    return "not shown" if width is None else f"± {width:.3f}"
