"""Draw the figures on a page that needs no network: a plot for each set, epsilon across, a line for each arm."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from simulations.benchmarks.quality.figures import Gain, Row
from simulations.results.report import UNPROTECTED, document, plot, text


def page(rows: Sequence[Row], gains: Sequence[Gain]) -> str:
    """Return one self-contained HTML page."""
    body = ["<h1>Quality at real sites</h1>"]
    for name in dict.fromkeys(row.name for row in rows):
        mine = [row for row in rows if row.name == name]
        body.append(f"<h2>{text(name)}</h2>")
        body.append(plot(f"set-{text(name)}", _figure(mine), f"{mine[0].metric} of every arm by epsilon"))
    for number, beside in enumerate(dict.fromkeys(gain.beside for gain in gains)):
        body.append(f"<h2>Federated minus the {text(beside)}</h2>")
        same = [gain for gain in gains if gain.beside == beside]
        body.append(plot(f"gains-{number}", _gains(same), f"Paired difference to the {beside}, intervals of 95 %"))
    return document("Quality at real sites", body)


def _figure(rows: Sequence[Row]) -> go.Figure:
    figure = go.Figure()
    for arm in dict.fromkeys(row.arm for row in rows):
        points = sorted((row for row in rows if row.arm == arm), key=lambda row: row.epsilon)
        if math.isfinite(points[0].epsilon) and points[0].epsilon > 0:
            figure.add_scatter(
                name=text(arm),
                x=[row.epsilon for row in points],
                y=[row.mean for row in points],
                error_y={"array": [row.deviation for row in points]},
            )
        else:
            colour = None if points[0].epsilon == 0 else UNPROTECTED
            figure.add_hline(points[0].mean, line_dash="dot", line_color=colour, annotation_text=text(arm))
    return figure.update_layout(xaxis_title="ε", xaxis_type="log", yaxis_title=text(rows[0].metric))


def _gains(gains: Sequence[Gain]) -> go.Figure:
    figure = go.Figure()
    for name in dict.fromkeys(gain.name for gain in gains):
        points = [gain for gain in gains if gain.name == name]
        spread = [0.0 if math.isnan(gain.high) else gain.high - gain.points for gain in points]
        labels = ["no privacy" if math.isinf(gain.epsilon) else f"ε = {gain.epsilon:g}" for gain in points]
        figure.add_bar(name=text(name), x=labels, y=[gain.points for gain in points], error_y={"array": spread})
    return figure.update_layout(barmode="group", yaxis_title="points")
