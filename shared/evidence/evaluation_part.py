"""Lay out a private evaluation: how good the model is at the sites, where it is worst, and whom it fails."""

from shared.evidence.facts import Report
from shared.evidence.texts import Texts
from shared.evidence.wording import table
from shared.pages.blocks import Block, Heading, Paragraph, Row
from shared.private_evaluation.choice import Choice
from shared.private_evaluation.estimates import UNITS, Estimate

ORDER = ("all sites", "worst site", "gap", "subgroup", "site", "confidence", "true label")
SHOWN, SHOWN_OF_SIMULATION = 12, 4
"""Rows of a report, so that three pages are enough: what holds for all sites, and the worst one, comes first."""


def evaluation_part(report: Report, texts: Texts) -> list[Block]:
    """Return the blocks of the last private evaluation; nothing for a report without one."""
    evaluated, figures = report.further.evaluation, texts.figures
    if evaluated is None:
        return []
    seeds = 1 if report.answer is None else report.answer.over_seeds
    several = seeds > 1
    words = {
        "round": figures.count(evaluated.number),
        "sites": figures.count(len(evaluated.sites)),
        "names": ", ".join(evaluated.sites),
        "sigma": figures.value(evaluated.sigma),
        "epsilon": figures.epsilon(evaluated.epsilon),
        "unit": report.study.unit,
    }
    if several:
        summary = texts("eval.summary over seeds", seeds=figures.count(seeds), **words)
    else:
        summary = texts("eval.summary", **words)
    blocks: list[Block] = [Heading(texts("heading.evaluation")), Paragraph(summary)]
    if evaluated.one_sum is not None and evaluated.one_sum.sigma is not None:
        blocks.append(Paragraph(texts("eval.only sum", sigma=figures.value(evaluated.one_sum.sigma))))
    if evaluated.without:
        left_out = ", ".join(f"{site} ({why.replace('_', ' ')})" for site, why in sorted(evaluated.without.items()))
        blocks.append(Paragraph(texts("eval.without", sites=left_out)))
    if (choice := report.further.choice) is not None:
        blocks.append(Paragraph(_chosen(choice, report.run.rounds_done, texts), "small"))
    columns = ("of whom", "measure", "value", "interval", *(() if several else ("here",)))
    header = [texts(f"table.{name}") for name in columns]
    ordered = sorted(evaluated.estimates, key=lambda one: ORDER.index(one.scope))
    rows = [Row(_cells(one, texts)[: len(header)]) for one in ordered]
    legend = texts("eval.legend over seeds", seeds=figures.count(seeds)) if several else texts("eval.legend")
    most = SHOWN if report.simulation is None else SHOWN_OF_SIMULATION - (report.further.choice is not None)
    return [*blocks, *table(header, rows, texts, most=most), Paragraph(legend, "small")]


def _chosen(choice: Choice, last: int, texts: Texts) -> str:
    """Say which evaluation is best, with the interval that allows for the choice, and whether it ended the run."""
    figures = texts.figures
    best = texts(
        "choice.best",
        rounds=", ".join(map(figures.count, choice.compared)),
        best=figures.count(choice.best),
        measure=texts(f"eval.measure {choice.measure}"),
        sites=figures.count(len(choice.sites)),
        value=figures.value(choice.value),
        low=figures.value(choice.low),
        high=figures.value(choice.high),
        low_here=figures.value(choice.low_here),
        high_here=figures.value(choice.high_here),
        of=figures.count(choice.of),
        handed_out=figures.count(choice.handed_out(last)),
    )
    sentences = [best, *([texts("choice.clear")] if choice.clear else [])]
    if choice.stop_after is not None:
        row, most = figures.count(choice.without_improvement), figures.count(choice.stop_after)
        sentences.append(texts("choice.row", row=row, most=most))
    return " ".join(sentences)


def _cells(estimate: Estimate, texts: Texts) -> list[str]:
    measure = texts(f"eval.measure {estimate.measure}")
    if estimate.label:
        measure = texts("eval.measure of", measure=measure, label=estimate.label)
    whom = texts(f"eval.scope {estimate.scope}", name=estimate.name)
    if estimate.value is None:
        return [whom, measure, texts("eval.not shown"), "", ""]
    return [
        whom,
        measure,
        _figure(estimate.value, estimate, texts),
        _ends(estimate.low, estimate.high, estimate, texts),
        _ends(estimate.low_here, estimate.high_here, estimate, texts),
    ]


def _ends(low: float | None, high: float | None, estimate: Estimate, texts: Texts) -> str:
    if low is None or high is None:
        return "-"
    return f"{_figure(low, estimate, texts)} – {_figure(high, estimate, texts)}"


def _figure(value: float, estimate: Estimate, texts: Texts) -> str:
    return texts.figures.count(round(value)) if estimate.measure == UNITS else texts.figures.value(value)
