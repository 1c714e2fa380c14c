"""Private evaluations of a run as blocks: the facts that `show` prints, and a chart over rounds. Pure."""

import math
from collections.abc import Sequence

from server.private_evaluation.results import RunEvaluations
from shared.pages.blocks import Picture, Row, Table
from shared.pages.charts import Line, lines
from shared.private_evaluation.estimates import HIGHER_IS_BETTER, Estimate, Evaluated
from shared.private_evaluation.wording import choice_lines, headline, rows

MOST_POINTS = 60
"""Evaluations of a chart: of more it shows the first, the last, and every so many between."""
OVER_ROUNDS = ("all sites", "worst site")
FIRST = ("all sites", "worst site", "gap", "subgroup")
"""Scopes that come first in the table, since there may be hundreds of sites."""


def evaluation_lines(evaluations: RunEvaluations, last: int) -> list[str]:
    """Return paragraphs on the evaluations of a run whose last finished round this is."""
    shown, choice = evaluations.of_adapter or evaluations.all[-1], evaluations.choice
    others = [str(one.number) for one in evaluations.all if one is not shown]
    further = others if len(others) < MOST_POINTS else [*others[:3], "…", *others[-3:]]
    more = f" There {'is one' if len(others) == 1 else 'are others'} after {', '.join(further)}." if others else ""
    return [headline(shown) + more, *([" ".join(choice_lines(choice, last))] if choice else [])]


def evaluation_rows(evaluated: Evaluated) -> list[Row]:
    """Return a row for each estimate, in the words of `show`; what holds for all sites comes first."""
    ordered = sorted(evaluated.estimates, key=lambda one: FIRST.index(one.scope) if one.scope in FIRST else len(FIRST))
    return [Row([*cells.values()]) for cells in rows(ordered)]


def evaluation_table(evaluated: Evaluated, *, first: int, most: int) -> Table:
    """Return some of the rows."""
    titles = list(rows(evaluated.estimates[:1])[0])
    return Table(titles, evaluation_rows(evaluated)[first : first + most])


def evaluation_curve(evaluated: Sequence[Evaluated]) -> Picture | None:
    """Draw how good the adapter was at the nodes, with intervals; None where it was not shown twice.

    What is not shown, since it rests on noise, is a gap in its line.
    """
    step = max(1, math.ceil(len(evaluated) / MOST_POINTS))
    drawn = [*evaluated[:-1][::step], *evaluated[-1:]]
    measures = [name for name in HIGHER_IS_BETTER if any(_of(one, OVER_ROUNDS[0], name) for one in drawn)]
    series = [_line(drawn, scope, measure) for measure in measures for scope in OVER_ROUNDS]
    series = [one for one in series if one.points]
    if max((len(one.points) for one in series), default=0) < 2:
        return None
    return lines(
        "Private evaluations, with 95 % intervals", series, across="round", up=" and ".join(measures), counts=True
    )


def _line(evaluated: Sequence[Evaluated], scope: str, measure: str) -> Line:
    known = [(one.number, estimate) for one in evaluated if (estimate := _of(one, scope, measure)) is not None]
    shown = [(number, estimate.value, estimate) for number, estimate in known if estimate.value is not None]
    return Line(
        f"{measure}, {scope}",
        [(float(number), value) for number, value, _ in shown],
        "ours" if scope == OVER_ROUNDS[0] else "plain",
        [None if one.low is None or one.high is None else (one.low, one.high) for *_, one in shown],
    )


def _of(evaluated: Evaluated, scope: str, measure: str) -> Estimate | None:
    return next((one for one in evaluated.estimates if (one.scope, one.measure) == (scope, measure)), None)
