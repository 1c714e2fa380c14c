"""Estimate from the sites' noisy counts how good a model is, where it is worst, and how far subgroups are apart.

| scope | of what | measures |
|---|---|---|
| `all sites`, `site` | their units together; each site's | units; accuracy; macro F1 or mean score where cells allow |
| `worst site` | the least of all sites, whichever it is | the same, without units |
| `subgroup` | a group's units at all sites | the same; selection and error rates by label where cells allow |
| `gap` | the largest of the declared groups less the smallest | the same, without units |
| `true label` | units with this label | the share that is predicted as each label |
| `confidence` | units with a confidence in this bin | the share that is right |

With two labels the second one is the good one: rates are those of that label alone. What rests on a count below five
standard deviations of its noise is not shown: it has no value.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shared.private_evaluation.averages import MacroF1, Mean
from shared.private_evaluation.cells import RIGHT, Cells, in_units
from shared.private_evaluation.conditional import interval_if_shown
from shared.private_evaluation.intervals import Interval, Numbers, Quantity, Share, Z, gap, least
from shared.section import Section
from shared.study.evaluation import OTHER

Scope = Literal["all sites", "site", "worst site", "subgroup", "gap", "true label", "confidence"]
UNITS, ACCURACY = "units", "accuracy"
CALIBRATION = "confidence above accuracy"
HIGHER_IS_BETTER = (ACCURACY, "macro F1", "mean score")


class Estimate(Section):
    """One number about the units that sites hold out, with its 95 % intervals; without value where it is not shown."""

    scope: Scope
    """What it is of: see `shared/private_evaluation/estimates.py`."""
    name: str = ""
    """Of the site, the subgroup, the true label or the bin."""
    measure: str
    """`units`, `accuracy`, `macro F1`, `mean score`, `confidence above accuracy`, a rate, or a share."""
    label: str = ""
    """Of a rate."""
    value: float | None = None
    """Null where it rests on a count below five standard deviations of its noise."""
    low: float | None = None
    """Lower end of the interval for whom the units were drawn from: it covers the noise and the draw of units."""
    high: float | None = None
    """Upper end."""
    low_here: float | None = None
    """Lower end of the interval for these very units: it covers the noise alone."""
    high_here: float | None = None
    """Upper end."""


class OneSum(Section):
    """The sum of the sites' counts, where a server can open nothing else: then no number is of a single site."""

    noise: Literal["masked", "shared"]
    """`masked`: every site adds all the noise of its own counts. `shared`: each adds a part, and the sum has enough."""
    sigma: float | None = None
    """Standard deviation of the noise on each count of the sum, in units; null where it was not opened."""
    lost: str = ""
    """Why it was not opened; empty if it was."""


class Evaluated(Section):
    """One private evaluation of a run: which sites answered, with which noise, and what follows from their counts."""

    number: int
    """Rounds that led to the adapter."""
    epsilon: float
    """Of all evaluations of the run together, for one unit that is held out."""
    sigma: float
    """Standard deviation of the noise on each count of a site, in units; of what it adds to a sum, if there is one."""
    sites: tuple[str, ...]
    """Those that answered."""
    without: dict[str, str] = Field(default_factory=dict)
    """Why the others did not: the code of a refusal, `late`, or `unreadable`."""
    estimates: tuple[Estimate, ...] = ()
    """Empty if no site answered."""
    one_sum: OneSum | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a run with a secure sum: then no estimate is of a single site, and there is no worst one."""


def estimates(cells: Cells, histograms: Mapping[str, NDArray[np.int64]], sigma: float) -> tuple[Estimate, ...]:
    """Return every number that the counts of some sites tell, in the order of the table above.

    Args:
        cells: of the study.
        histograms: by site, as released.
        sigma: standard deviation of the noise on each count, in units.
    """
    if not histograms:
        return ()
    by_site = {name: in_units(counts).reshape(cells.shape) for name, counts in sorted(histograms.items())}
    together, spread = np.sum([*by_site.values()], axis=0), sigma * len(by_site) ** 0.5
    return _in_order(cells, together, spread, [*_of_sites(cells, by_site, sigma)])


def estimates_of_sum(cells: Cells, histogram: NDArray[np.int64], sigma: float) -> tuple[Estimate, ...]:
    """Return every number that the sum of the sites' counts tells: none of a single site.

    Args:
        cells: of the study.
        histogram: the sum, as it was opened.
        sigma: standard deviation of the noise on each of its counts, in units.
    """
    return _in_order(cells, in_units(histogram).reshape(cells.shape), sigma, [])


def _in_order(cells: Cells, together: Numbers, spread: float, of_sites: list[Estimate]) -> tuple[Estimate, ...]:
    return (
        *_of_units("all sites", "", cells, together, spread),
        *of_sites,
        *_of_subgroups(cells, together, spread),
        *_of_cells(cells, together, spread),
    )


def quality_of(cells: Cells, histograms: Mapping[str, NDArray[np.int64]], sigma: float) -> dict[str, Quantity]:
    """Return how good the model is for the units of some sites together, by measure.

    Args:
        cells: of the study.
        histograms: by site, as released; at least one.
        sigma: standard deviation of the noise on each count, in units.
    """
    together = np.sum([in_units(counts) for counts in histograms.values()], axis=0).reshape(cells.shape)
    return _quality(cells, *_all_groups(together, sigma * len(histograms) ** 0.5))


def _of_units(scope: Scope, name: str, cells: Cells, counts: Numbers, sigma: float) -> Iterator[Estimate]:
    """Yield size and quality of the units of some sites, whatever their group."""
    yield _size(scope, name, counts, sigma)
    for measure, quantity in _quality(cells, *_all_groups(counts, sigma)).items():
        yield _estimate(scope, name, measure, "", quantity)


def _of_sites(cells: Cells, by_site: Mapping[str, Numbers], sigma: float) -> Iterator[Estimate]:
    for name, counts in by_site.items():
        yield from _of_units("site", name, cells, counts, sigma)
    qualities = {name: _quality(cells, *_all_groups(counts, sigma)) for name, counts in by_site.items()}
    for measure in HIGHER_IS_BETTER:
        shown = {name: one[measure] for name, one in qualities.items() if measure in one and one[measure].shown}
        if shown:
            name = min(shown, key=lambda site: float(shown[site].estimate))
            limits = {way: least([*shown.values()], sampling=way) for way in (True, False)}
            yield _with_limits("worst site", name, measure, "", float(shown[name].estimate), limits)


def _of_subgroups(cells: Cells, counts: Numbers, sigma: float) -> Iterator[Estimate]:
    names = cells.axes[0].values
    if len(names) == 1:
        return
    by_group = dict[str, dict[tuple[str, str], Quantity]]()
    for name, own in zip(names, counts, strict=True):
        qualities = {(measure, ""): quantity for measure, quantity in _quality(cells, own, sigma).items()}
        by_group[name] = qualities | _rates(cells, own, sigma)
        yield _size("subgroup", name, own, sigma)
        for (measure, label), quantity in by_group[name].items():
            yield _estimate("subgroup", name, measure, label, quantity)
    declared = [by_group[name] for name in names if name != OTHER]
    for measure, label in by_group[names[0]]:
        shown = [own[measure, label] for own in declared if own[measure, label].shown]
        if len(shown) < 2:
            yield Estimate(scope="gap", measure=measure, label=label)
            continue
        value = float(np.ptp([quantity.estimate for quantity in shown]))
        limits = {way: gap(shown, sampling=way) for way in (True, False)}
        yield _with_limits("gap", "", measure, label, value, limits)


def _of_cells(cells: Cells, counts: Numbers, sigma: float) -> Iterator[Estimate]:
    """Yield the confusion matrix, or how often the model is right by its confidence."""
    own, spread = _all_groups(counts, sigma)
    if cells.kind == "confusion":
        labels = cells.axes[1].values
        for truth, row in zip(labels, own, strict=True):
            for prediction, inside in zip(labels, row, strict=True):
                share = Share(inside, row.sum(), 1, len(labels), spread)
                yield _estimate("true label", truth, "share predicted", prediction, share)
    elif _has_confidence(cells):
        for name, row in zip(cells.axes[1].values, own, strict=True):
            yield _estimate("confidence", name, ACCURACY, "", Share(row[RIGHT], row.sum(), 1, 2, spread))


def _quality(cells: Cells, own: Numbers, sigma: float) -> dict[str, Quantity]:
    """Return what the counts of one group say about the model, by measure."""
    if cells.kind == "right-wrong":
        return {ACCURACY: Share(own[RIGHT], own.sum(), 1, 2, sigma)}
    if cells.kind == "confusion":
        return {
            ACCURACY: Share(np.trace(own), own.sum(), len(own), own.size, sigma),
            "macro F1": MacroF1(own, sigma),
        }
    middles = (np.arange(len(own)) + 0.5) / len(own)
    if not _has_confidence(cells):
        return {"mean score": Mean(own, middles, sigma)}
    is_right = np.arange(own.shape[1]) == RIGHT
    above = Mean(own.ravel(), np.subtract.outer(middles, is_right.astype(float)).ravel(), sigma)
    return {ACCURACY: Share(own[:, RIGHT].sum(), own.sum(), len(own), own.size, sigma), CALIBRATION: above}


def _has_confidence(cells: Cells) -> bool:
    return cells.kind == "scores" and len(cells.axes) == 3


def _rates(cells: Cells, own: Numbers, sigma: float) -> dict[tuple[str, str], Quantity]:
    """Return selection, true- and false-positive rates of one group, by measure and label."""
    rates = dict[tuple[str, str], Quantity]()
    if cells.kind != "confusion":
        return rates
    labels = cells.axes[1].values
    for place, label in enumerate(labels):
        if len(labels) == 2 and place == 0:
            continue
        others, count = np.delete(own, place, axis=0), len(labels)
        rates["selection rate", label] = Share(own[:, place].sum(), own.sum(), count, own.size, sigma)
        rates["true-positive rate", label] = Share(own[place, place], own[place].sum(), 1, count, sigma)
        rates["false-positive rate", label] = Share(others[:, place].sum(), others.sum(), count - 1, others.size, sigma)
    return rates


def _all_groups(counts: Numbers, sigma: float) -> tuple[Numbers, float]:
    """Add up the groups, and their noise."""
    return counts.sum(axis=0), sigma * len(counts) ** 0.5


def _size(scope: Scope, name: str, counts: Numbers, sigma: float) -> Estimate:
    total, half = float(counts.sum()), Z * sigma * counts.size**0.5
    low, high = max(0.0, total - half), max(0.0, total + half)
    return Estimate(
        scope=scope, name=name, measure=UNITS, value=max(0.0, total), low=low, high=high, low_here=low, high_here=high
    )


def _estimate(scope: Scope, name: str, measure: str, label: str, quantity: Quantity) -> Estimate:
    if not quantity.shown:
        return Estimate(scope=scope, name=name, measure=measure, label=label)
    own = quantity.interval if not isinstance(quantity, Share) else partial(interval_if_shown, quantity)
    limits = {way: own(sampling=way) for way in (True, False)}
    return _with_limits(scope, name, measure, label, float(quantity.estimate), limits)


def _with_limits(
    scope: Scope, name: str, measure: str, label: str, value: float, limits: Mapping[bool, Interval]
) -> Estimate:
    drawn, here = limits[True], limits[False]
    return Estimate(
        scope=scope,
        name=name,
        measure=measure,
        label=label,
        value=value,
        low=float(drawn.low),
        high=float(drawn.high),
        low_here=float(here.low),
        high_here=float(here.high),
    )
