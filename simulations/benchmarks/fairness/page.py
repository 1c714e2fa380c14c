"""Show what privacy does to subgroups: pictures of each set, and one page that needs no network."""

from collections.abc import Sequence
from itertools import groupby

from shared.evidence.facts import Interval
from shared.pages.blocks import Block, Heading, Paragraph, Picture, Table
from shared.pages.blocks import Row as TableRow
from shared.pages.charts import Bar, bars
from shared.pages.html_page import html_page
from simulations.benchmarks.fairness.gaps import ACCURACY, Row

TITLE = "What privacy does to subgroups"
MEANING = (
    "Private training less the same training without privacy, on the same held-out people, in points. Intervals are of "
    "95 %: over people, and over seeds where there are several. A gap is the largest rate of a subgroup minus the "
    "smallest; even equal treatment shows the gap by chance half of the time."
)
LONGEST_LABEL = 27
"""Characters beside a bar."""
DRAWN_GAPS = (ACCURACY, "selection rate")
HEADER = ("set", "by", "subgroup", "people", "rate", "ε", "private", "without privacy", "change (95 %)")
GAP_HEADER = ("set", "by", "gap in", "ε", "private (95 %)", "by chance", "without privacy", "change (95 %)")


def page(rows: Sequence[Row]) -> str:
    """Return the whole page: two pictures and two tables for each set."""
    blocks: list[Block] = [Heading(TITLE, 1), Paragraph(MEANING)]
    for name, group in groupby(rows, key=lambda row: row.name):
        own = list(group)
        gaps, subgroups = ([row for row in own if bool(row.subgroup) == wanted] for wanted in (False, True))
        blocks += [Heading(name), picture(name, own)]
        blocks += [Table(HEADER, [TableRow(cells(row)) for row in subgroups])]
        blocks += [gap_picture(name, own)]
        blocks += [Table(GAP_HEADER, [TableRow(gap_cells(row)) for row in gaps])]
    return html_page(TITLE, "en", blocks)


def picture(name: str, rows: Sequence[Row]) -> Picture:
    """Draw what privacy changes in each subgroup's accuracy, with the number of people, over epsilon."""
    shown = [row for row in rows if row.name == name and row.subgroup and row.rate == ACCURACY]
    ordered = sorted(shown, key=lambda row: (row.column, -row.people, row.subgroup, row.epsilon))
    title = f"{name}: accuracy with privacy less without, by subgroup (people held out) and ε"
    return bars(
        title, [_bar(_label(row), row) for row in ordered], axis="accuracy with privacy less without, in points"
    )


def gap_picture(name: str, rows: Sequence[Row]) -> Picture:
    """Draw what privacy changes in the gaps between subgroups that matter most, over epsilon; tables have all."""
    shown = sorted(
        (row for row in rows if row.name == name and not row.subgroup and row.rate in DRAWN_GAPS),
        key=lambda row: (row.column, row.rate, row.epsilon),
    )
    drawn = [_bar(f"{row.rate.removesuffix(' rate')}, {row.column} ε {row.epsilon:g}", row) for row in shown]
    title = f"{name}: gaps between subgroups with privacy less without, by rate, column and ε"
    return bars(title, drawn, axis="gap with privacy less without, in points")


def _bar(label: str, row: Row) -> Bar:
    return Bar(label, row.effect.value, written(row.effect), row.effect.low, row.effect.high, "ours")


def _label(row: Row) -> str:
    """Name a bar; a long subgroup's name is cut, so that its epsilon is not."""
    end = f" ({row.people:,}) ε {row.epsilon:g}"
    name, room = row.subgroup, LONGEST_LABEL - len(end)
    return (name if len(name) <= room else name[: room - 1].rstrip() + "…") + end


def cells(row: Row) -> list[str]:
    """Write a subgroup's row for a table."""
    figures = [f"{row.epsilon:g}", f"{row.private:.1f}", f"{row.without:.1f}", written(row.effect)]
    return [row.name, row.column, row.subgroup, f"{row.people:,}", row.rate, *figures]


def gap_cells(row: Row) -> list[str]:
    """Write a gap's row for a table."""
    low, high = row.ends or (row.private, row.private)
    own = f"{row.private:.1f} ({low:.1f} to {high:.1f})"
    figures = [f"{row.epsilon:g}", own, f"{row.by_chance or 0.0:.1f}", f"{row.without:.1f}", written(row.effect)]
    return [row.name, row.column, row.rate, *figures]


def written(interval: Interval) -> str:
    """Write a change with its interval; what rounds to zero has no minus."""
    low, high = interval.low, interval.high
    ends = "" if low is None or high is None else f" ({_signed(low)} to {_signed(high)})"
    return f"{_signed(interval.value)}{ends}"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"
