"""Compare how good an arm is for each subgroup, and how far subgroups are apart. Pure, no IO.

With two labels the second one is the good one: a subgroup's selection rate is the share that gets it, its true- and
false-positive rates are that share among those whose true label it is, or is not.

Intervals draw held-out units with replacement: other people of the same sites, not other seeds. A gap is the largest
rate minus the smallest, so it is above zero even where subgroups are treated alike: look at its lower end, and at the
gap that chance alone would make.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simulations.engines.worker import Seen
from simulations.experiment.sites import Groups
from simulations.results.result import Fairness, Gap, Subgroup

RESAMPLES, SEED = 1000, 20
PERCENTILES = (2.5, 97.5)
FEWEST = 30
"""Held-out units of a subgroup; smaller ones are shown, but make no gap."""
RATES = ("accuracy", "selection rate", "true-positive rate", "false-positive rate")


def subgroups_of_arm(
    predictions: Sequence[Seen], groups: Groups, values: Mapping[str, Sequence[str]], *, two_labels: bool
) -> Fairness:
    """Return figures by subgroup, and the gaps between them by rate.

    Args:
        predictions: of an arm, by site.
        groups: units of the held-out records.
        values: the subgroup of each held-out record, by site; blank where it is not known.
        two_labels: whether the task has two labels, so that selection and error rates mean something.
    """
    order = sorted(predictions, key=lambda seen: seen.site)
    pairs = np.array([pair for seen in order for pair in seen.evidence], dtype=np.int64).reshape(-1, 2)
    units = np.concatenate([groups.of_site[seen.site] for seen in order])
    names = np.array([name for seen in order for name in values[seen.site]])
    known = names != ""
    subgroups = sorted(set(names[known].tolist()))
    cells = _cells(pairs[known], units[known], names[known], subgroups)  # (units, subgroups, numerators and counts)
    counted = (cells[..., 1] > 0).sum(axis=0)
    totals, large = cells.sum(axis=0), counted >= FEWEST
    rates = RATES if two_labels else RATES[:1]
    shown = {
        name: Subgroup(records=int(totals[place, 1]), units=int(counted[place]), rates=_rates(totals[place], rates))
        for place, name in enumerate(subgroups)
    }
    return Fairness(subgroups=shown, gaps=_gaps(cells[:, large], rates) if large.sum() > 1 else {})


def _cells(
    pairs: NDArray[np.int64], units: NDArray[np.int64], names: NDArray[np.str_], subgroups: Sequence[str]
) -> NDArray[np.float64]:
    """Add up numerator and count of each rate, by unit and subgroup (units, subgroups, 2 x rates)."""
    predicted, true = pairs[:, 0], pairs[:, 1]
    one, right, chosen, good = np.ones(len(pairs)), predicted == true, predicted == 1, true == 1
    columns = np.stack([right, one, chosen, one, chosen & good, good, chosen & ~good, ~good], axis=1).astype(float)
    rows = np.unique(units, return_inverse=True)[1]
    cells = np.zeros((int(rows.max(initial=-1)) + 1, len(subgroups), columns.shape[1]))
    np.add.at(cells, (rows, np.searchsorted(subgroups, names)), columns)
    return cells


def _rates(total: NDArray[np.float64], rates: Sequence[str]) -> dict[str, float]:
    return {
        name: float(total[2 * place] / total[2 * place + 1]) if total[2 * place + 1] else math.nan
        for place, name in enumerate(rates)
    }


def _gaps(cells: NDArray[np.float64], rates: Sequence[str]) -> dict[str, Gap]:
    generator, units = np.random.default_rng(SEED), len(cells)
    flat = cells.reshape(units, -1)
    draws = np.stack(
        [np.bincount(generator.integers(0, units, units), minlength=units) @ flat for _ in range(RESAMPLES)]
    ).reshape(RESAMPLES, *cells.shape[1:])
    totals, gaps = cells.sum(axis=0), dict[str, Gap]()
    for place, name in enumerate(rates):
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn, measured = (each[..., 2 * place] / each[..., 2 * place + 1] for each in (draws, totals))
        spread = drawn.max(axis=1) - drawn.min(axis=1)
        if np.isfinite(spread).all() and np.isfinite(measured).all():
            low, high = np.percentile(spread, PERCENTILES)
            by_chance = np.percentile(np.ptp(drawn - measured, axis=1), 50)
            gaps[name] = Gap(
                value=float(np.ptp(measured)), low=float(low), high=float(high), by_chance=float(by_chance)
            )
    return gaps
