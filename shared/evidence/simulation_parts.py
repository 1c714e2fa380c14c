"""Lay out what only a simulation knows: every arm beside the others, round by round, site by site."""

import math
from collections.abc import Iterator

from shared.evidence.facts import Arm, Interval, Report, SimulationFacts
from shared.evidence.texts import Texts
from shared.evidence.wording import SHOWN_ROWS, ends, metric_title, seeds_in_words, table
from shared.pages.blocks import Block, Heading, Paragraph, Picture, Row, Tone
from shared.pages.charts import Bar, Line, bars, lines

SHOWN_BESIDE = 6
"""Rounds and sites of a report that has a private evaluation or subgroups too."""
SHOWN_SUBGROUPS = 8


def simulation_parts(report: Report, texts: Texts) -> list[Block]:
    """Return the blocks of a simulation."""
    facts, answer = report.simulation, report.answer
    if facts is None or answer is None:
        return []
    metric = metric_title(answer, texts)
    return [
        Paragraph(_guarantee(report, texts)),
        Heading(texts("sim.arms", metric=metric)),
        *_arms(report, facts, texts),
        *(Paragraph(note, "small") for note in facts.notes),
        bars(
            texts("sim.arms bars", metric=metric),
            [_bar(arm, texts) for arm in facts.arms],
            axis=metric,
            limits=_share([arm.quality.value for arm in facts.arms], higher_is_better=answer.higher_is_better),
        ),
        *_differences(report, facts, texts),
        *_rounds(report, facts, texts),
        Heading(texts("sim.sites")),
        *_sites(facts, texts, metric, most=_most(report)),
        *_subgroups(report, texts),
        Heading(texts("sim.sizes")),
        *_sizes(facts, texts),
    ]


def _most(report: Report) -> int:
    return SHOWN_BESIDE if report.further.evaluation or report.further.subgroups else SHOWN_ROWS


def _guarantee(report: Report, texts: Texts) -> str:
    epsilon, delta = texts.figures.epsilon(report.meaning.epsilon), texts.figures.small(report.study.delta)
    return texts("sim.guarantee", unit=report.study.unit, epsilon=epsilon, delta=delta)


def _tone(arm: Arm) -> Tone:
    return "ours" if arm.ours else "plain" if arm.private else "warning"


def _arms(report: Report, facts: SimulationFacts, texts: Texts) -> list[Block]:
    figures, in_points = texts.figures, report.answer is not None and report.answer.in_points
    compared = any(arm.minus for arm in facts.arms)
    header = ["arm", "rows", "steps", "epsilon", "all", "worst", *(["minus"] if compared else [])]
    rows = [
        Row(
            [
                arm.title,
                figures.count(arm.rows) if arm.rows else "-",
                figures.count(arm.steps) if arm.steps else "-",
                texts("sim.no protection") if not arm.private else _epsilon(arm, texts),
                _with_ends(arm.quality, texts),
                f"{figures.value(arm.worst)} ({arm.worst_site})",
                *([_minus(arm, texts, in_points=in_points)] if compared else []),
            ],
            _tone(arm),
        )
        for arm in facts.arms
    ]
    return table([texts(f"table.{name}") for name in header], rows, texts)


def _epsilon(arm: Arm, texts: Texts) -> str:
    if arm.epsilon is None:
        return "-"
    epsilon, colluding = texts.figures.epsilon(arm.epsilon), arm.epsilon_if_all_collude
    if colluding is None:
        return epsilon
    return texts("table.epsilon colluding", epsilon=epsilon, colluding=texts.figures.epsilon(colluding))


def _with_ends(interval: Interval, texts: Texts) -> str:
    written, low_high = texts.figures.value(interval.value), ends(interval, texts)
    return written if low_high is None else f"{written} ({low_high[0]} – {low_high[1]})"


def _minus(arm: Arm, texts: Texts, *, in_points: bool) -> str:
    if arm.minus is None:
        return "-"
    written = texts.figures.difference(arm.minus.value, in_points=in_points)
    low_high = ends(arm.minus, texts, in_points=in_points)
    return written if low_high is None else f"{written} ({low_high[0]} – {low_high[1]})"


def _bar(arm: Arm, texts: Texts) -> Bar:
    one = arm.quality
    return Bar(arm.title, _drawn(one.value), _with_ends(one, texts), _drawn(one.low), _drawn(one.high), _tone(arm))


def _differences(report: Report, facts: SimulationFacts, texts: Texts) -> Iterator[Block]:
    answer, rows = report.answer, list[Bar]()
    if answer is None:
        return
    scale = 100.0 if answer.in_points else 1.0
    for arm in facts.arms:
        if arm.minus is None or not math.isfinite(arm.minus.value):
            continue
        low, high = (None if end is None else scale * end for end in (_drawn(arm.minus.low), _drawn(arm.minus.high)))
        shown = _minus(arm, texts, in_points=answer.in_points)
        rows.append(Bar(arm.title, scale * arm.minus.value, shown, low, high, _tone(arm)))
    if not rows:
        return
    title = texts("sim.differences")
    axis = texts("sim.better by points") if answer.in_points else texts("sim.better by", metric=answer.metric)
    yield Heading(title)
    yield bars(title, rows, axis=axis)
    count = texts.figures.count(facts.drawn_units)
    if facts.differ_over == "seeds":
        sources = seeds_in_words(facts.seeds_of, texts)
        yield Paragraph(texts("sim.over seeds", seeds=texts.figures.count(answer.over_seeds), sources=sources), "small")
    elif any(arm.minus and arm.minus.low is not None for arm in facts.arms):
        records = texts(f"records.{answer.measured_on}")
        yield Paragraph(texts("sim.over records", records=records, count=count, unit=facts.drawn_unit), "small")


def _rounds(report: Report, facts: SimulationFacts, texts: Texts) -> Iterator[Block]:
    answer = report.answer
    if answer is None or not facts.curve:
        return
    series = [
        Line(texts("sim.all sites"), [(point.round, point.value) for point in facts.curve], "ours"),
        Line(texts("sim.worst site"), [(point.round, point.worst) for point in facts.curve]),
        *_other_curves(facts, texts),
    ]
    yield Heading(texts("sim.rounds"))
    if len(facts.curve) > 1:
        yield _curve(report, series, texts)
    header = [texts(f"table.{name}") for name in ("round", "all", "worst")]
    figures = texts.figures
    rows = [Row([figures.count(one.round), figures.value(one.value), figures.value(one.worst)]) for one in facts.curve]
    yield from table(header, rows, texts, most=_most(report))


def _other_curves(facts: SimulationFacts, texts: Texts) -> Iterator[Line]:
    """Yield other arms round by round; without a curve, the first unprotected one at the level of its last figure."""
    unprotected = next((arm for arm in facts.arms if arm.steps and not arm.private), None)
    for arm in facts.arms:
        label = texts("sim.without privacy") if arm is unprotected else arm.title
        if arm.curve:
            yield Line(label, [(point.round, point.value) for point in arm.curve], _tone(arm))
        elif arm is unprotected:
            ends_at = facts.curve[0].round, facts.curve[-1].round
            yield Line(label, [(end, arm.quality.value) for end in ends_at], _tone(arm))


def _curve(report: Report, series: list[Line], texts: Texts) -> Picture:
    answer = report.answer
    assert answer is not None  # noqa: S101 - `_rounds` looked
    values = [value for line in series for _, value in line.points]
    return lines(
        texts("sim.rounds"),
        series,
        across=texts("sim.round"),
        up=metric_title(answer, texts),
        limits=_share(values, higher_is_better=answer.higher_is_better),
    )


def _sites(facts: SimulationFacts, texts: Texts, metric: str, *, most: int) -> list[Block]:
    figures = texts.figures
    header = [*(texts(f"table.{name}") for name in ("site", "trained", "evaluated")), metric, texts("table.epsilon")]
    rows = [
        Row(
            [
                site.name,
                figures.count(site.train),
                "-" if site.evaluated is None else figures.count(site.evaluated),
                figures.value(site.quality),
                figures.epsilon(site.epsilon),
            ]
        )
        for site in facts.sites
    ]
    return table(header, rows, texts, most=most)


def _subgroups(report: Report, texts: Texts) -> list[Block]:
    subgroups, figures = report.further.subgroups, texts.figures
    if not subgroups:
        return []
    rows = []
    for one in subgroups:
        low_high = None if one.effect is None else ends(one.effect, texts, in_points=True)
        change = "-" if one.effect is None else figures.difference(one.effect.value, in_points=True)
        written = change if low_high is None else f"{change} ({low_high[0]} – {low_high[1]})"
        rows.append(Row([f"{one.column}: {one.name}", figures.count(one.units), figures.value(one.quality), written]))
    header = [texts(f"table.{name}") for name in ("subgroup", "units", "accuracy", "effect")]
    blocks = table(header, rows, texts, most=SHOWN_SUBGROUPS)
    return [Heading(texts("sim.subgroups")), *blocks, Paragraph(texts("sim.subgroups legend"), "small")]


def _sizes(facts: SimulationFacts, texts: Texts) -> list[Block]:
    figures = texts.figures
    rows = [Row([size.way, figures.size(size.bytes)]) for size in facts.sizes]
    blocks = table([texts("table.way"), texts("table.size")], rows, texts)
    return [*blocks, Paragraph(texts("sim.minutes", minutes=figures.value(facts.minutes)), "small")]


def _share(values: list[float], *, higher_is_better: bool) -> tuple[float, float] | None:
    """Return the whole axis of a share of what could be reached; None, so that values choose it, for anything else."""
    return (0.0, 1.0) if higher_is_better and all(0 <= value <= 1 for value in values) else None


def _drawn(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
