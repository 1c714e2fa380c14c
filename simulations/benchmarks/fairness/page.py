"""Draw the gaps over epsilon as one page that needs no network: a picture for each set and column, then the table."""

import html
import math
from collections.abc import Sequence
from itertools import groupby

from simulations.benchmarks.fairness.gaps import Row

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 230, 46, 34, 26
COLOURS = {
    "accuracy": "#1f5fa8",
    "selection rate": "#8a5a00",
    "true-positive rate": "#2e7d32",
    "false-positive rate": "#b3261e",
}
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:.85rem}td,th{padding:.2rem .6rem;text-align:right;"
    "border-bottom:1px solid #ddd}svg{font:11px system-ui,sans-serif}"
)
MEANING = (
    "A gap is the largest rate of a subgroup minus the smallest, in points, over held-out people. Bars are 95 % "
    "intervals over people; a hollow dot lies where even equal treatment would often show such a gap: its interval "
    "begins below what chance shows half of the time."
)


def page(rows: Sequence[Row]) -> str:
    """Return the whole page."""
    pictures = [_picture(key, list(group)) for key, group in groupby(rows, key=lambda row: (row.name, row.column))]
    legend = " ".join(f'<b style="color:{colour}">{rate}</b>' for rate, colour in COLOURS.items())
    body = f"<h1>Gaps between groups, over ε</h1><p>{MEANING}</p><p>{legend}</p>{''.join(pictures)}{_table(rows)}"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Gaps</title><style>{STYLE}</style>{body}\n'


def written(epsilon: float) -> str:
    """Write an epsilon; an infinite one is no privacy."""
    return "none" if math.isinf(epsilon) else f"{epsilon:g}"


def _picture(key: tuple[str, str], rows: Sequence[Row]) -> str:
    epsilons = sorted({row.epsilon for row in rows})
    top = 10 * math.ceil(max(row.high for row in rows) / 10) or 10
    step = (WIDTH - LEFT) / len(epsilons)
    parts = [f'<text x="{LEFT}" y="14" font-weight="600">{html.escape(f"{key[0]}, by {key[1]}")}</text>']
    for number in range(5):
        y, label = _y(top * number / 4, top), f"{top * number / 4:g}"
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH}" stroke="#e3e6ea"/><text x="6" y="{y + 4:.1f}">{label}</text>')
    for place, epsilon in enumerate(epsilons):
        middle = LEFT + step * (place + 0.5)
        parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 12}" text-anchor="middle">ε {written(epsilon)}</text>')
        here = [row for row in rows if row.epsilon == epsilon]
        for number, row in enumerate(here):
            parts.append(_dot(row, middle + step * 0.16 * (number - (len(here) - 1) / 2), top))
    label = html.escape(f"Gaps between subgroups by {key[1]} on {key[0]}, over epsilon")
    return f'<svg role="img" aria-label="{label}" width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'


def _dot(row: Row, x: float, top: float) -> str:
    colour, low, high, y = COLOURS[row.rate], _y(row.low, top), _y(row.high, top), _y(row.points, top)
    fill = "#fff" if row.low <= row.by_chance else colour
    return (
        f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}"/>'
    )


def _y(points: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * points / top


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in HEADER)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(row)) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


HEADER = ("set", "by", "rate", "ε", "gap", "95 %", "by chance", "lowest (people)", "accuracy of all", "seeds")


def cells(row: Row) -> list[str]:
    """Write a row for the table."""
    return [
        row.name,
        row.column,
        row.rate,
        written(row.epsilon),
        f"{row.points:.1f}",
        f"{row.low:.1f} to {row.high:.1f}",
        f"{row.by_chance:.1f}",
        row.lowest,
        f"{row.accuracy:.1f}",
        str(row.seeds),
    ]
