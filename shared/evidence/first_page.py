"""Lay out what somebody who decides reads first: question, answer, cost, what left, what is spent, and what ε means."""

from collections.abc import Iterator

from shared.evidence.facts import Answer, Report
from shared.evidence.figures import moment
from shared.evidence.texts import Texts
from shared.evidence.wording import difference, ends, in_words, metric_title
from shared.pages.blocks import Block, Card, Cards, Heading, Paragraph
from shared.pages.charts import Part, gauge


def first_page(report: Report, texts: Texts) -> list[Block]:
    """Return the blocks of the first screen."""
    run, figures = report.run, texts.figures
    subtitle = texts(f"kind.{report.kind}", issuer=report.issuer, run=run.name, issued=moment(report.issued))
    blocks: list[Block] = [Heading(report.study.name, 1), Paragraph(subtitle, "small")]
    if report.study.purpose:
        blocks.append(Paragraph(report.study.purpose, "lead"))
    state = texts(
        f"state.{run.state}", done=figures.count(run.rounds_done), rounds=figures.count(run.rounds), reason=run.reason
    )
    blocks.append(Paragraph(state, "plain" if run.state == "finished" else "box"))
    if report.kind == "simulation":
        blocks.append(Paragraph(texts("simulated"), "box"))
    blocks.append(Cards([*_answer(report, texts), *_left(report, texts)]))
    blocks += _budget(report, texts)
    blocks.append(Paragraph(in_words(report, texts)))
    return blocks


def _answer(report: Report, texts: Texts) -> Iterator[Card]:
    answer, meant, figures = report.answer, report.meaning, texts.figures
    if answer is not None:
        records, title = texts(f"records.{answer.measured_on}"), metric_title(answer, texts)
        counted = None if answer.counted is None else figures.count(answer.counted)
        name = (
            texts("card.answer uncounted", metric=title, records=records)
            if counted is None
            else texts("card.answer", metric=title, counted=counted, records=records)
        )
        yield Card(name, figures.value(answer.quality.value), _certainty(answer, texts))
        if (cost := answer.privacy_cost) is not None:
            low_high = ends(cost, texts, in_points=answer.in_points)
            words = (
                texts("card.cost words alone")
                if low_high is None
                else texts("card.cost words", low=low_high[0], high=low_high[1])
            )
            yield Card(texts("card.cost"), difference(cost, texts, in_points=answer.in_points), words)
    name, epsilon = texts("card.epsilon", unit=report.study.unit), figures.epsilon(meant.epsilon)
    if meant.epsilon <= 0:
        yield Card(name, texts("card.nothing left"), texts("card.epsilon only", epsilon=epsilon))
    elif meant.best_guess_percent is None:
        yield Card(name, texts("card.epsilon only", epsilon=epsilon), texts("card.nothing promised"))
    else:
        guess = texts("card.guess", percent=figures.percent(meant.best_guess_percent))
        yield Card(name, guess, texts("card.guess words", epsilon=epsilon))


def _certainty(answer: Answer, texts: Texts) -> str:
    low_high = ends(answer.quality, texts)
    if low_high is None:
        return texts("card.one seed") if answer.over_seeds == 1 and answer.measured_on != "server" else ""
    if answer.over_seeds > 1:
        seeds = texts.figures.count(answer.over_seeds)
        return texts("card.interval over seeds", seeds=seeds, low=low_high[0], high=low_high[1])
    return texts("card.interval", low=low_high[0], high=low_high[1])


def _left(report: Report, texts: Texts) -> Iterator[Card]:
    left, figures = report.left, texts.figures
    if left is None:
        return
    size = texts("card.size unknown") if left.bytes is None else figures.size(left.bytes)
    updates = texts("card.updates", updates=figures.count(left.updates))
    if left.houses is None:
        words = texts("card.left words", size=size) if left.updates else ""
        yield Card(texts("card.left house"), updates if left.updates else texts("card.nothing left"), words)
    else:
        yield Card(texts("card.left"), updates, texts("card.left houses", houses=figures.count(left.houses), size=size))


def _budget(report: Report, texts: Texts) -> list[Block]:
    budget, figures = report.budget, texts.figures
    if budget is None:
        return []
    amounts = {"before": budget.before, "run": budget.run, "earmarked": budget.earmarked, "left": budget.left}
    title = texts("gauge.title", limit=figures.epsilon(budget.limit), delta=figures.small(budget.delta))
    parts = [Part(texts(f"gauge.{name}"), amount, figures.epsilon(amount)) for name, amount in amounts.items()]
    return [Paragraph(title, "small"), gauge(title, parts, limit=budget.limit)]
