"""Draw the figures on a page that needs no network: a plot for each set, epsilon across, a line for each arm."""

import math
from collections.abc import Sequence

from shared.pages.blocks import Block, Heading, Picture, Tone
from shared.pages.charts import Bar, Line, bars, lines
from shared.pages.html_page import html_page
from simulations.benchmarks.quality.figures import Gain, Row

TITLE = "Quality at real sites"


def page(rows: Sequence[Row], gains: Sequence[Gain]) -> str:
    """Return one self-contained HTML page."""
    body: list[Block] = [Heading(TITLE, 1)]
    for name in dict.fromkeys(row.name for row in rows):
        body += [Heading(name), _arms([row for row in rows if row.name == name])]
    for beside in dict.fromkeys(gain.beside for gain in gains):
        title = f"Federated minus the {beside}"
        body += [Heading(title), _gains(title, [gain for gain in gains if gain.beside == beside])]
    return html_page(TITLE, "en", body)


def _arms(rows: Sequence[Row]) -> Picture:
    spent = [row.epsilon for row in rows if math.isfinite(row.epsilon) and row.epsilon > 0]
    ends = (min(spent), max(spent)) if spent else (0.0, 1.0)
    series = list[Line]()
    for arm in dict.fromkeys(row.arm for row in rows):
        points = sorted((row.epsilon, row.mean) for row in rows if row.arm == arm)
        if math.isfinite(points[0][0]) and points[0][0] > 0:
            series.append(Line(arm, points))
        else:  # no epsilon is its own: the same at each
            tone: Tone = "plain" if points[0][0] == 0 else "warning"
            series.append(Line(arm, [(end, points[0][1]) for end in ends], tone))
    return lines(f"{rows[0].name}: {rows[0].metric} of every arm", series, across="ε", up=rows[0].metric)


def _gains(title: str, gains: Sequence[Gain]) -> Picture:
    rows = [
        Bar(
            f"{gain.name}, {'no privacy' if math.isinf(gain.epsilon) else f'ε = {gain.epsilon:g}'}",
            gain.points,
            f"{gain.points:+.1f}" + ("" if math.isnan(gain.low) else f" ({gain.low:+.1f} to {gain.high:+.1f})"),
            *((None, None) if math.isnan(gain.low) else (gain.low, gain.high)),
        )
        for gain in gains
    ]
    return bars(f"{title}, over seeds", rows, axis="points, with intervals of 95 % over seeds")
