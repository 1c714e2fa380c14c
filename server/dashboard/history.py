"""A run's rounds, what it cost each node, and how good it became, as blocks. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from server.operator.round_text import Names, round_row
from shared.evidence.facts import Report
from shared.evidence.figures import Figures, moment
from shared.evidence.texts import Texts
from shared.pages.blocks import Card, Cards, Cell, Code, Facts, Picture, Row, Table
from shared.pages.charts import Line, lines

FIGURES = Figures(".", ",")
TEXTS = Texts("en")
MOST_POINTS = 200
"""Of a curve: a longer one is thinned, its last point stays."""

MOST_WORDS = 300
"""Characters of a round's notes; a page of rounds is read at a glance."""


def run_cards(report: Report) -> Cards:
    """Return the figures that say how a run stands."""
    run, answer, left = report.run, report.answer, report.left
    cards = [Card("Rounds", f"{run.rounds_done:,} of {run.rounds:,}", run.state)]
    if answer is not None:
        ends = answer.quality
        words = f"on {answer.counted:,} records" if answer.counted else "on records"
        words += " of the server's own"
        if ends.low is not None and ends.high is not None:
            words = f"{FIGURES.value(ends.low)} to {FIGURES.value(ends.high)}, {words}"
        cards.append(Card(answer.metric, FIGURES.value(ends.value), words))
    if report.houses:
        most = max(house.epsilon for house in report.houses)
        cards.append(Card("ε, the most that a node spent", FIGURES.epsilon(most), f"for every {report.study.unit}"))
    if left is not None:
        size = "not known" if left.bytes is None else FIGURES.size(left.bytes)
        cards.append(Card("Left the nodes", size, f"{left.updates:,} updates of {left.houses:,} nodes"))
    return Cards(cards)


def trust_sentence(report: Report) -> str:
    """Say whose noise protects the records, and from whom."""
    if report.trust is None:
        return ""
    epsilon = FIGURES.epsilon(report.trust.epsilon_if_all_collude)
    return TEXTS(f"trust.{report.trust.noise}", epsilon=epsilon, unit=report.study.unit)


def study_facts(report: Report) -> Facts:
    """Return what was asked."""
    study = report.study
    rows: list[tuple[str, Cell]] = [
        (name, value)
        for name, value in (
            ("Purpose", study.purpose),
            ("Requester", study.requester),
            ("Contact", study.contact),
            ("Legal basis", study.legal_basis),
            ("Base model", study.base_model),
        )
        if value
    ]
    if study.epsilon is not None:
        rows.append(("Declared", f"ε = {FIGURES.epsilon(study.epsilon)} at δ = {study.delta:g} for every {study.unit}"))
    rows += [("Queued", moment(report.run.began)), ("Study", Code(study.sha256))]
    return Facts(rows)


def spent_by_node(report: Report, *, first: int, most: int) -> Table:
    """Return some nodes' cost, those first that spent most."""
    houses = sorted(report.houses, key=lambda house: (-house.epsilon, house.name))[first : first + most]
    rows = [
        Row(
            [
                house.name,
                f"{house.rounds:,}",
                "-" if house.released is None else f"{house.released:,}",
                "-" if house.bytes_each is None else FIGURES.size(house.bytes_each * (house.released or 0)),
                FIGURES.epsilon(house.epsilon),
            ]
        )
        for house in houses
    ]
    return Table(["node", "rounds paid", "updates", "sent", "ε spent"], rows)


def rounds_table(rounds: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]], names: Names) -> Table:
    """Return some rounds, the newest first."""
    rows = []
    for record, evaluation in reversed(rounds):
        cells = round_row(dict(record), None if evaluation is None else dict(evaluation), names)
        accepted = f"{len(record['accepted'])} of {len(record['asked'])}"
        why = [cells[name] for name in ("refused", "rejected") if cells[name]]
        late = f"late: {cells['missing']}" if cells["missing"] else ""
        notes = "; ".join([*why, *([late] if late else [])])
        notes = notes if len(notes) <= MOST_WORDS else f"{notes[:MOST_WORDS]} …"
        rows.append(
            Row(
                [cells["round"], cells["outcome"], accepted, notes, cells["seconds"], cells["evaluation"]],
                "plain" if record["outcome"] == "aggregated" else "warning",
            )
        )
    return Table(["round", "outcome", "updates", "without", "seconds", "evaluation"], rows)


def quality_curve(points: Sequence[tuple[int, float]], metric: str) -> Picture | None:
    """Draw how good the adapter was after each round; None where it was not measured twice."""
    finite = [(float(number), value) for number, value in points if math.isfinite(value)]
    if len(finite) < 2:
        return None
    step = max(1, math.ceil(len(finite) / MOST_POINTS))
    drawn = [*finite[:-1][::step], finite[-1]]
    return lines("Round by round", [Line(metric, drawn, "ours")], across="round", up=metric, counts=True)
