"""Put a board into words: one part for each metric and data set, then one for each setting."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.evidence.facts import Interval
from shared.evidence.figures import Figures
from shared.pages.blocks import Block, Cell, Link, Paragraph, Row, Table
from simulations.board.charts import axis, drawn_of, epsilon_against_quality, every_arm, rounds_side_by_side
from simulations.board.comparison import Comparison, Setting, comparisons, paired
from simulations.board.runs import BoardRun
from simulations.results.report import OURS, UNPROTECTED
from simulations.results.wording import VALIDATION

FIGURES = Figures(".", ",")
SEEDED = "Simulations: noise was seeded to be repeatable, so nothing that these runs released is private."
DASH = "\N{NO-BREAK SPACE}–\N{WORD JOINER}\N{NO-BREAK SPACE}"
"""Between the ends of an interval, which stay on one line."""
ReportOf = Callable[[BoardRun], str | None]
"""Where a run's report is, seen from the board; None if the board has none."""


class Section(NamedTuple):
    """A part of the board."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False
    """Whether it is opened by whoever wants to see it."""
    open: bool = False
    """Whether it is open to begin with."""


class Board(NamedTuple):
    """Everything that a board says."""

    lead: str
    sections: Sequence[Section]
    notes: Sequence[str]
    seeded: str = SEEDED
    """What no reader may miss."""


def board_of(runs: Sequence[BoardRun], unreadable: Sequence[str], report_of: ReportOf) -> Board:
    """Compare runs, in words, tables and drawings."""
    compared, notes = comparisons(runs)
    settings = sum(len(one.settings) for one in compared)
    lead = f"{_counted(len(runs), 'run')} of {_counted(settings, 'setting')}. {_over(compared)}"
    sections = list[Section]()
    for one in compared:
        sections.append(Section(f"{axis(one)}: {one.source}", _side_by_side(one, report_of)))
        sections += [
            Section(setting.label, _arms(one, setting), folded=True, open=len(one.settings) == 1)
            for setting in one.settings
        ]
    return Board(lead, sections, [*notes, *(f"Not read: {line}" for line in unreadable)])


def _over(compared: Sequence[Comparison]) -> str:
    several = any(len(setting.runs) > 1 for one in compared for setting in one.settings)
    if not several:
        return "Intervals cover other held-out records, not other seeds."
    return "Figures are means over seeds, with 95 % intervals by Student's t; differences are paired by seed."


def _side_by_side(comparison: Comparison, report_of: ReportOf) -> list[Block]:
    first, several = comparison.settings[0], len(comparison.settings) > 1
    costed = any(UNPROTECTED in one.arms for one in comparison.settings)
    header = ["setting", "seeds", "ε", "federated", "worst site"]
    header += ["minus without privacy"] if costed else []
    header += ["minus the first"] if several else []
    linked = any(report_of(run) for one in comparison.settings for run in one.runs)
    header += ["minutes", "sent by a node", *(["reports"] if linked else [])]
    rows = []
    for one in comparison.settings:
        cells: list[Cell] = [one.label, _seeds(one), FIGURES.epsilon(one.epsilon), _shown(one.quality()), _worst(one)]
        cells += [_cost(one, comparison)] if costed else []
        cells += [_minus_first(first, one, comparison)] if several else []
        cells += [FIGURES.value(one.minutes()), FIGURES.size(one.sent_bytes())]
        cells += [_reports(one, report_of)] if linked else []
        rows.append(Row(cells))
    pictures = [epsilon_against_quality(comparison), rounds_side_by_side(comparison)]
    return [
        Table(header, rows),
        Paragraph(_how_to_read(comparison), "small"),
        *[picture for picture in pictures if picture is not None],
        *(Paragraph(line, "small") for line in drawn_of(comparison)),
    ]


def _how_to_read(comparison: Comparison) -> str:
    unit = "Differences are in points" if comparison.in_points else "Differences are in the metric's own unit"
    worst = "The worst site of each run is averaged over seeds."
    records = f" {VALIDATION}" if comparison.evaluated_on == "validation" else ""
    return f"{unit}, positive where the setting is better. {worst}{records}"


def _arms(comparison: Comparison, setting: Setting) -> list[Block]:
    header = ["arm", "ε", "all sites", "worst site", "federated minus it", "seconds"]
    rows = []
    for name, title in setting.arms.items():
        arms = [run.result.arms[name] for run in setting.runs]
        minus = None if name == OURS else setting.minus(name)
        spent = max((arm.epsilon for arm in arms if arm.epsilon is not None), default=None)
        cells: list[Cell] = [
            title,
            "no protection" if not arms[0].private else "-" if spent is None else FIGURES.epsilon(spent),
            _shown(setting.quality(name)),
            _worst(setting, name),
            "-" if minus is None else _difference(minus, in_points=comparison.in_points),
            FIGURES.value(sum(arm.seconds for arm in arms) / len(arms)),
        ]
        rows.append(Row(cells, "ours" if name == OURS else "plain" if arms[0].private else "warning"))
    picture = every_arm(comparison, setting)
    names = ", ".join(f"{run.name} (seed {run.seeds.in_words})" for run in setting.runs)
    return [Table(header, rows), *([picture] if picture else []), Paragraph(f"Runs: {names}.", "small")]


def _seeds(setting: Setting) -> str:
    return ", ".join(run.seeds.in_words for run in setting.runs)


def _worst(setting: Setting, arm: str = OURS) -> str:
    """Return the mean of the worst sites' figures, and their names."""
    worst = [run.result.arms[arm].quality.worst_site for run in setting.runs]
    names = ", ".join(dict.fromkeys(one.site for one in worst))
    return f"{FIGURES.value(sum(one.value for one in worst) / len(worst))} ({names})"


def _cost(setting: Setting, comparison: Comparison) -> str:
    minus = setting.minus(UNPROTECTED) if UNPROTECTED in setting.arms else None
    return "-" if minus is None else _difference(minus, in_points=comparison.in_points)


def _minus_first(first: Setting, one: Setting, comparison: Comparison) -> str:
    minus = None if one is first else paired(first, one, higher_is_better=comparison.higher_is_better)
    return "-" if minus is None else _difference(minus, in_points=comparison.in_points)


def _reports(setting: Setting, report_of: ReportOf) -> Cell:
    links = [(f"seed {run.seeds.in_words}", where) for run in setting.runs if (where := report_of(run)) is not None]
    return Link(links) if links else "-"


def _shown(one: Interval) -> str:
    ends = "" if one.low is None or one.high is None else _ends(FIGURES.value(one.low), FIGURES.value(one.high))
    return FIGURES.value(one.value) + ends


def _difference(one: Interval, *, in_points: bool) -> str:
    def written(value: float) -> str:
        return FIGURES.difference(value, in_points=in_points)

    ends = "" if one.low is None or one.high is None else _ends(written(one.low), written(one.high))
    return written(one.value) + ends


def _ends(low: str, high: str) -> str:
    return f" ({low}{DASH}{high})"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count:,} {what}s"
