"""Draw bars, lines and a gauge as SVG: every label has a place of its own, and every drawing says what it shows.

Bars begin at zero, and no axis is logarithmic, so that a length is what it looks like. Nothing is told by colour alone:
lines differ in dashes too, and what nothing protects is hatched. The same drawing stands in HTML and in PDF.
"""

import html
import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

from shared.pages.blocks import Picture, Tone

WIDTH, FONT_PX, CHARACTER_PX, LINE_PX = 720.0, 13.0, 7.4, 18.0
FONT = "Libertinus Serif"
"""The face that stands in every PDF; a page in a browser has its own."""
INK, GREY, GRID, WARNING = "#1d2329", "#5a636c", "#d5dbe1", "#b3261e"
COLOURS = ("#0b5cad", "#8a5a00", "#1b7f5c", "#7a3e9d", "#4a5560", "#a0522d", "#00708a", "#5c6b00")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4", "1 4", "6 2 1 2")
TICKS = 5


@dataclass(frozen=True)
class Bar:
    """One bar, from zero to its value."""

    label: str
    value: float | None
    """None where there is nothing finite to draw."""
    shown: str
    """The value as it is written beside it, with its interval."""
    low: float | None = None
    high: float | None = None
    """Ends of its interval, drawn as a whisker."""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Line:
    """One line through points; what is not finite leaves a gap."""

    label: str
    points: Sequence[tuple[float, float]]
    tone: Tone = "plain"
    ends: Sequence[tuple[float, float] | None] = ()
    """Ends of each point's interval, drawn as a whisker; as many as points, or none."""


@dataclass(frozen=True)
class Part:
    """One part of a gauge."""

    label: str
    value: float
    shown: str
    rest: bool = False
    """Whether it is what nothing has been used of, which is drawn palest."""


def bars(title: str, rows: Sequence[Bar], *, axis: str, limits: tuple[float, float] | None = None) -> Picture:
    """Draw one bar a row, with its label on the left and its figure on the right.

    Args:
        title: of the drawing.
        rows: from top to bottom.
        axis: what the values are, with their unit.
        limits: of the axis; by default from the values, with zero in it.
    """
    left, right = 225.0, 195.0
    drawn = [edge for row in rows for edge in (row.value, row.low, row.high) if edge is not None]
    low, high = limits or _range(drawn, with_zero=True)
    across = _Axis(low, high, left, WIDTH - right)
    step = 26.0
    bottom = 8 + step * len(rows)
    parts = list[str]()
    for tick in across.ticks():
        parts.append(_rule(across.at(tick), 4, across.at(tick), bottom, GRID))
        parts.append(_text(across.at(tick), bottom + 16, across.written(tick), align="middle", colour=GREY))
    labels = _fitted([row.label for row in rows], left - 20)
    figures = _fitted([row.shown for row in rows], right - 12)
    for number, row in enumerate(rows):
        middle = 8 + step * number + step / 2
        parts.append(_text(left - 10, middle + 4.5, labels[number], align="end", full=row.label))
        parts += _bar(row, across, middle)
        parts.append(_text(WIDTH - right + 10, middle + 4.5, figures[number]))
    parts.append(_rule(across.at(min(max(0.0, low), high)), 4, across.at(min(max(0.0, low), high)), bottom, INK))
    parts.append(_text((left + WIDTH - right) / 2, bottom + 36, axis, align="middle", colour=GREY))
    says = "; ".join(f"{row.label}: {row.shown}" for row in rows)
    return _drawing(title, says, bottom + 44, parts)


def lines(
    title: str,
    series: Sequence[Line],
    *,
    across: str,
    up: str,
    limits: tuple[float, float] | None = None,
    counts: bool = False,
) -> Picture:
    """Draw lines, each with its label at its right end; labels are moved apart where lines end close together.

    Args:
        title: of the drawing.
        series: the first one is in front.
        across: what the horizontal axis is.
        up: what the vertical axis is, with its unit.
        limits: of the vertical axis; by default from the values.
        counts: the horizontal axis has whole numbers alone, such as rounds.
    """
    finite = [one for one in map(_finite, series) if one.points]
    left, right, top = 66.0, 190.0, 26.0
    bottom = top + max(210.0, LINE_PX * len(finite))
    xs, ys = [x for one in finite for x, _ in one.points], [y for one in finite for _, y in one.points]
    ys += [end for one in finite for ends in one.ends if ends is not None for end in ends]
    horizontal = _Axis(*_range(xs), left, WIDTH - right, counts=counts)
    vertical = _Axis(*(limits or _range(ys)), bottom, top)
    parts = [_text(4, 14, up, colour=GREY)]
    for tick in vertical.ticks():
        parts.append(_rule(left, vertical.at(tick), WIDTH - right, vertical.at(tick), GRID))
        parts.append(_text(left - 8, vertical.at(tick) + 4.5, vertical.written(tick), align="end", colour=GREY))
    for tick in horizontal.ticks():
        parts.append(_text(horizontal.at(tick), bottom + 18, horizontal.written(tick), align="middle", colour=GREY))
    ends = _apart([vertical.at(one.points[-1][1]) for one in finite], top, bottom)
    labels, label_at = _fitted([one.label for one in finite], right - 24), WIDTH - right + 22
    for number, one in reversed(list(enumerate(finite))):
        parts += _line(one, number, horizontal, vertical, (label_at, ends[number]), labels[number])
    parts.append(_text((left + WIDTH - right) / 2, bottom + 38, across, align="middle", colour=GREY))
    says = "; ".join(f"{one.label}: {vertical.written(one.points[-1][1])}" for one in finite)
    return _drawing(title, says, bottom + 46, parts)


def gauge(title: str, parts: Sequence[Part], *, limit: float, width: float = WIDTH) -> Picture:
    """Draw the parts of a whole as one bar, with a legend of one line a part.

    Args:
        title: of the drawing.
        parts: from left to right; what is beyond the limit is cut off, its figure stays.
        limit: the length of the bar, in the parts' unit.
        width: of the drawing; its text has one size whatever it is.
    """
    drawn, used = list[str](), 0.0
    for number, part in enumerate(parts):
        length = max(0.0, min(part.value, limit - used)) / limit * (width - 8) if limit > 0 else 0.0
        start = 4 + (used / limit if limit > 0 else 0.0) * (width - 8)
        fill = (COLOURS[0], "#9cc3e8", "#e3cf9b", "#eef2f5")[3 if part.rest else min(number, 3)]
        drawn.append(f'<rect x="{start:.1f}" y="4" width="{length:.1f}" height="22" fill="{fill}"/>')
        used = min(limit, used + max(0.0, part.value))
        y = 46 + LINE_PX * number
        drawn.append(f'<rect x="4" y="{y - 10:.1f}" width="11" height="11" fill="{fill}" stroke="{GREY}"/>')
        drawn.append(_text(22, y, f"{part.label}: {part.shown}"))
    drawn.append(f'<rect x="4" y="4" width="{width - 8:.1f}" height="22" fill="none" stroke="{INK}"/>')
    says = "; ".join(f"{part.label}: {part.shown}" for part in parts)
    return _drawing(title, says, 40 + LINE_PX * len(parts), drawn, width=width)


def on_white(svg: str) -> str:
    """Return a drawing for a file of its own, which some viewers would show on black."""
    start = svg.index(">") + 1
    return f'{svg[:start]}<rect width="100%" height="100%" fill="#fff"/>{svg[start:]}'


class _Axis:
    """A linear axis between two places of the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float, *, counts: bool = False) -> None:
        self._low, self._high, self._start, self._end = low, high, start, end
        rough = max((high - low) / TICKS, 1.0 if counts else 0.0)
        size = 10.0 ** math.floor(math.log10(rough))
        steps = (factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
        self._step = next(step for step in steps if not counts or step == round(step))

    def at(self, value: float) -> float:
        """Return the place of a value; what lies outside stands at the end."""
        share = (min(max(value, self._low), self._high) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return round values on the axis."""
        first = math.ceil(self._low / self._step - 1e-9)
        last = math.floor(self._high / self._step + 1e-9)
        return [number * self._step for number in range(first, last + 1)]

    def written(self, value: float) -> str:
        """Write a value with the digits that the axis needs."""
        digits = next((n for n in range(6) if math.isclose(self._step * 10**n % 1, 0, abs_tol=1e-6)), 6)
        return f"{value + 0.0:.{digits}f}" if abs(value) < 1e6 else f"{value:.1e}"


def _range(values: Iterable[float], *, with_zero: bool = False) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)] + ([0.0] if with_zero else [])
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return places for labels, in the order of what they belong to, at least a line apart."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    places, lowest = dict[int, float](), top - LINE_PX
    for number in order:
        lowest = places[number] = max(wanted[number], lowest + LINE_PX)
    highest = bottom + LINE_PX
    for number in reversed(order):
        highest = places[number] = min(places[number], highest - LINE_PX)
    return [places[number] for number in range(len(wanted))]


def _bar(row: Bar, across: _Axis, middle: float) -> list[str]:
    if row.value is None:
        return []
    start, end = sorted((across.at(0.0), across.at(row.value)))
    fill = {"plain": "#9cc3e8", "ours": COLOURS[0], "warning": "url(#hatched)"}[row.tone]
    stroke = WARNING if row.tone == "warning" else COLOURS[0]
    outline = f'fill="{fill}" stroke="{stroke}"'
    parts = [f'<rect x="{start:.1f}" y="{middle - 7:.1f}" width="{end - start:.1f}" height="14" {outline}/>']
    if row.low is not None and row.high is not None:
        low, high = across.at(row.low), across.at(row.high)
        parts.append(_rule(low, middle, high, middle, INK))
        parts += [_rule(edge, middle - 4, edge, middle + 4, INK) for edge in (low, high)]
    return parts


def _finite(one: Line) -> Line:
    ends = one.ends or [None] * len(one.points)
    places = [(point, its_ends) for point, its_ends in zip(one.points, ends, strict=True) if math.isfinite(point[1])]
    return Line(one.label, [point for point, _ in places], one.tone, [its_ends for _, its_ends in places])


def _whisker(x: float, low: float, high: float, colour: str) -> list[str]:
    return [_rule(x, low, x, high, colour), *(_rule(x - 4, end, x + 4, end, colour) for end in (low, high))]


def _line(
    one: Line, number: int, horizontal: _Axis, vertical: _Axis, label_at: tuple[float, float], label: str
) -> list[str]:
    colour = WARNING if one.tone == "warning" else COLOURS[number % len(COLOURS)]
    width = 3 if one.tone == "ours" else 1.5
    dashes = "2 4" if one.tone == "warning" else DASHES[number % len(DASHES)] if one.tone == "plain" else ""
    places = [(horizontal.at(x), vertical.at(y)) for x, y in one.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    label_x, label_y = label_at
    stroke = f'stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes or "none"}"'
    whiskers = [
        part
        for (x, _), ends in zip(places, one.ends, strict=True)
        if ends is not None
        for part in _whisker(x, vertical.at(ends[0]), vertical.at(ends[1]), colour)
    ]
    return [
        *whiskers,
        f'<polyline points="{path}" fill="none" {stroke}/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>' for x, y in places),
        _rule(places[-1][0] + 3, places[-1][1], label_x - 4, label_y, GRID),
        _text(label_x, label_y + 4.5, label, colour=colour, full=one.label),
    ]


def _fitted(labels: Sequence[str], width: float) -> list[str]:
    """Cut labels that are too long: at the end, or, where they would look alike then, where their differences stay."""
    most = int(width / CHARACTER_PX)
    everywhere = set(labels[0].split()).intersection(*map(str.split, labels)) if labels else set[str]()
    cuts: tuple[Callable[[str], str], ...] = (
        lambda label: _ended(label, most),
        lambda label: label[: most // 2 - 1].rstrip() + "…" + _last_words(label, most - most // 2),
        lambda label: "…" + _last_words(label, most - 1),
        lambda label: _ended(_without(everywhere, label), most),
    )
    ways = [[label if len(label) <= most else cut(label) for label in labels] for cut in cuts]
    return next((fitted for fitted in ways if len(set(fitted)) == len(set(labels))), ways[0])


def _ended(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def _last_words(label: str, most: int) -> str:
    """Return the end of a label from the start of a word on: half of a number would be another number."""
    return label[-most - 1 :].partition(" ")[2] or label[-most:]


def _without(words: Set[str], label: str) -> str:
    """Leave out words, with one … for each run of them."""
    parts = ["…" if word in words else word for word in label.split()]
    return " ".join(part for part, before in zip(parts, ["", *parts], strict=False) if not part == before == "…")


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, *, align: str = "start", colour: str = INK, full: str = "") -> str:
    title = f"<title>{html.escape(full)}</title>" if full and full != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{align}" fill="{colour}">{title}{html.escape(text)}</text>'


def _drawing(title: str, says: str, height: float, parts: Sequence[str], *, width: float = WIDTH) -> Picture:
    hatched = (
        '<defs><pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
        f'<line x1="0" y1="0" x2="0" y2="6" stroke="{WARNING}" stroke-width="3"/></pattern></defs>'
    )
    described = f"<title>{html.escape(title)}</title><desc>{html.escape(says)}</desc>"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="{FONT}" font-size="{FONT_PX:g}">'
        f"{described}{hatched if any('#hatched' in part for part in parts) else ''}{''.join(parts)}</svg>"
    )
    return Picture(svg, f"{title}. {says}")
