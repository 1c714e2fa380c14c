"""Compare how good an arm is for each subgroup, and how far subgroups are apart. Pure, no IO.

With two labels the second one is the good one: a subgroup's selection rate is the share that gets it, its true- and
false-positive rates are that share among those whose true label it is, or is not.

Intervals draw held-out units with replacement: other people of the same sites, not other seeds. A gap is the largest
rate minus the smallest, so it is above zero even where subgroups are treated alike: look at its lower end, and at the
gap that chance alone would make. What privacy does to a subgroup is an effect: a rate less that of the same training
without privacy, on the same units, drawn together.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from simulations.engines.worker import Seen
from simulations.experiment.sites import Groups
from simulations.results.report import FEWEST
from simulations.results.result import Effect, Fairness, Gap, Subgroup

RESAMPLES, SEED = 1000, 20
PERCENTILES = (2.5, 97.5)
Values = NDArray[np.float64]
RATES = ("accuracy", "selection rate", "true-positive rate", "false-positive rate")


def subgroups_of_arm(
    predictions: Sequence[Seen],
    groups: Groups,
    values: Mapping[str, Sequence[str]],
    *,
    two_labels: bool,
    reference: Sequence[Seen] | None = None,
) -> Fairness:
    """Return figures by subgroup, and the gaps between them by rate.

    Args:
        predictions: of an arm, by site.
        groups: units of the held-out records.
        values: the subgroup of each held-out record, by site; blank where it is not known.
        two_labels: whether the task has two labels, so that selection and error rates mean something.
        reference: of the arm without privacy on the same records; each figure is then compared with its own.
    """
    rates = RATES if two_labels else RATES[:1]
    subgroups, cells = _by_subgroup(predictions, groups, values)
    counted = (cells[..., 1] > 0).sum(axis=0)
    large, totals = counted >= FEWEST, cells.sum(axis=0)
    drawn = _draws(cells[:, large])
    effects = dict[str, dict[str, Effect]]()
    other = None
    if reference is not None:
        plain = _by_subgroup(reference, groups, values)[1][:, large]
        other = (plain.sum(axis=0), _draws(plain))
        names = [name for name, one in zip(subgroups, large, strict=True) if one]
        effects = _effects(names, rates, (totals[large], drawn), other)
    shown = {
        name: Subgroup(
            records=int(totals[place, 1]),
            units=int(counted[place]),
            rates=_rates(totals[place], rates),
            effects=effects.get(name, {}),
        )
        for place, name in enumerate(subgroups)
    }
    gaps = _gaps(rates, (totals[large], drawn), other) if large.sum() > 1 else {}
    return Fairness(subgroups=shown, gaps=gaps)


def _by_subgroup(
    predictions: Sequence[Seen], groups: Groups, values: Mapping[str, Sequence[str]]
) -> tuple[list[str], Values]:
    """Return the subgroups, and what each unit adds to the rates of each, in an order that is the same for each arm."""
    order = sorted(predictions, key=lambda seen: seen.site)
    pairs = np.array([pair for seen in order for pair in seen.evidence], dtype=np.int64).reshape(-1, 2)
    units = np.concatenate([groups.of_site[seen.site] for seen in order])
    names = np.array([name for seen in order for name in values[seen.site]])
    known = names != ""
    subgroups = sorted(set(names[known].tolist()))
    return subgroups, _cells(pairs[known], units[known], names[known], subgroups)


def _cells(
    pairs: NDArray[np.int64], units: NDArray[np.int64], names: NDArray[np.str_], subgroups: Sequence[str]
) -> Values:
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


def _draws(cells: Values) -> Values:
    """Draw units with replacement, the same ones for each arm; returns totals (draws, subgroups, 2 x rates)."""
    generator, units = np.random.default_rng(SEED), len(cells)
    flat = cells.reshape(units, -1)
    totals = [np.bincount(generator.integers(0, units, units), minlength=units) @ flat for _ in range(RESAMPLES)]
    return np.stack(totals).reshape(RESAMPLES, *cells.shape[1:])


def _shares(totals: Values, place: int) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Values = totals[..., 2 * place] / totals[..., 2 * place + 1]
    return shares


def _effects(
    names: Sequence[str], rates: Sequence[str], ours: tuple[Values, Values], other: tuple[Values, Values]
) -> dict[str, dict[str, Effect]]:
    """Return each subgroup's rates less those of the other arm; pairs are totals, and totals of draws."""
    effects: dict[str, dict[str, Effect]] = {name: {} for name in names}
    for place, rate in enumerate(rates):
        measured, drawn = (
            _shares(mine, place) - _shares(theirs, place) for mine, theirs in zip(ours, other, strict=True)
        )
        for number, name in enumerate(names):
            if np.isfinite(drawn[:, number]).all():
                effects[name][rate] = _effect(measured[number], drawn[:, number])
    return effects


def _effect(measured: float, drawn: Values) -> Effect:
    low, high = np.percentile(drawn, PERCENTILES)
    return Effect(value=float(measured), low=float(low), high=float(high))


def _gaps(rates: Sequence[str], ours: tuple[Values, Values], other: tuple[Values, Values] | None) -> dict[str, Gap]:
    gaps = dict[str, Gap]()
    for place, name in enumerate(rates):
        measured, drawn = (_shares(totals, place) for totals in ours)
        spread = np.ptp(drawn, axis=1)
        if not (np.isfinite(spread).all() and np.isfinite(measured).all()):
            continue
        low, high = np.percentile(spread, PERCENTILES)
        by_chance = np.percentile(np.ptp(drawn - measured, axis=1), 50)
        effect = None
        if other is not None:
            its_own, its_spread = (np.ptp(_shares(totals, place), axis=-1) for totals in other)
            if np.isfinite(its_spread).all():
                effect = _effect(np.ptp(measured) - its_own, spread - its_spread)
        gaps[name] = Gap(
            value=float(np.ptp(measured)),
            low=float(low),
            high=float(high),
            by_chance=float(by_chance),
            effect=effect,
        )
    return gaps
