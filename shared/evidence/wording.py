"""Word what several parts of a report say: a metric, a difference with its interval, an ε, the beginning of a table."""

from collections.abc import Sequence

from shared.evidence.facts import Answer, Interval, Report
from shared.evidence.texts import Texts
from shared.pages.blocks import Block, Paragraph, Row, Table

SHOWN_ROWS = 20
"""Of a table, so that three pages are enough; the JSON has all of them."""

SPLITS = ("split", "holdout")
SOURCES = ("noise", "batches", *SPLITS)


def metric_title(answer: Answer, texts: Texts) -> str:
    """Return the metric's name as a heading begins, with its direction where lower is better."""
    name = answer.metric[:1].upper() + answer.metric[1:]
    return name if answer.higher_is_better else texts("card.lower", metric=name)


def ends(interval: Interval, texts: Texts, *, in_points: bool | None = None) -> tuple[str, str] | None:
    """Write both ends of an interval; None if it has none. A difference says whether it is `in_points`."""
    if interval.low is None or interval.high is None:
        return None
    if in_points is None:
        return texts.figures.value(interval.low), texts.figures.value(interval.high)
    write = texts.figures.difference
    return write(interval.low, in_points=in_points), write(interval.high, in_points=in_points)


def difference(interval: Interval, texts: Texts, *, in_points: bool) -> str:
    """Write a difference, in points where it is one of shares."""
    written = texts.figures.difference(interval.value, in_points=in_points)
    return texts("card.points", value=written) if in_points else written


def in_words(report: Report, texts: Texts) -> str:
    """Return what the report's ε means, in one sentence or two."""
    meant, unit, figures = report.meaning, report.study.unit, texts.figures
    epsilon, delta = figures.epsilon(meant.epsilon), figures.small(report.study.delta)
    if meant.epsilon <= 0:
        return texts("words.none", unit=unit)
    if meant.at_most_times is None or meant.best_guess_percent is None:
        return texts("words.too large", epsilon=epsilon)
    times, percent = figures.times(meant.at_most_times), figures.percent(meant.best_guess_percent)
    return texts("words.some", epsilon=epsilon, times=times, unit=unit, percent=percent, delta=delta)


def seeds_in_words(sources: Sequence[str], texts: Texts) -> str:
    """List what was drawn from seeds that differ: noise, batches, split, holdout; of none, all of them."""
    listed = [source for source in sources or SOURCES if source not in SPLITS]
    splits = [source for source in sources or SOURCES if source in SPLITS]
    words = [texts(f"seeds.{one}") for one in (*listed, *(["splits"] if len(splits) == len(SPLITS) else splits))]
    return texts("seeds.and").join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def table(header: Sequence[str], rows: Sequence[Row], texts: Texts, *, most: int = SHOWN_ROWS) -> list[Block]:
    """Return a table of the first rows, and how many more there are."""
    blocks: list[Block] = [Table(header, rows[:most])] if rows else []
    if len(rows) > most:
        blocks.append(Paragraph(texts("table.more", more=texts.figures.count(len(rows) - most)), "small"))
    return blocks
