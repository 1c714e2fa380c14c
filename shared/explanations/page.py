"""Lay explanations out as one page, and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.explanations.explain import Explanation
from shared.explanations.regions import RegionAttribution
from shared.explanations.words import Piece, TextAttribution
from shared.files import write_atomically
from shared.pages.blocks import Block, Heading, Paragraph, Row, Table
from shared.pages.html_page import html_page
from shared.pages.overlays import heat_map, weighted_words

PAGE, FIGURES = "explanations.html", "explanations.json"
MOST_WORDS = 8
METHODS = {
    "text": "Integrated gradients over the words (Sundararajan et al. 2017): the words' weights, with those of the "
    "model's own marks, add up to the score less the score of a blank text of the same length.",
    "regions": "Occlusion (Zeiler and Fergus 2014): a cell's weight is the fall of the score when that cell is hidden. "
    "Weights do not add up to the score.",
}
READING = (
    "Solid underlines and blue cells speak for the answer; dashes and red ones speak against it. It shows what this "
    "model used, not whether it is right, and not what causes what."
)


def write_explanations(explanations: Sequence[Explanation], title: str, folder: Path) -> list[Path]:
    """Write a page and its figures into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, figures = folder / PAGE, folder / FIGURES
    write_atomically(page, explanation_page(explanations, title).encode())
    write_atomically(figures, (json.dumps(as_json(explanations), indent=1) + "\n").encode())
    return [page, figures]


def explanation_page(explanations: Sequence[Explanation], title: str) -> str:
    """Return a page that needs no network and shows every explanation."""
    regions = any(isinstance(one.attribution, RegionAttribution) for one in explanations)
    method = METHODS["regions" if regions else "text"]
    blocks: list[Block] = [Heading(title, 1), Paragraph(READING, "lead"), Paragraph(method, "small")]
    for one in explanations:
        blocks += _blocks(one)
    return html_page(title, "en", blocks)


def as_json(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """Return explanations as plain values."""
    return [
        {"row": one.row + 1, "answer": one.answer, "score_is": one.score_is} | _figures(one) for one in explanations
    ]


def _figures(one: Explanation) -> dict[str, Any]:
    parts = one.attribution
    if isinstance(parts, RegionAttribution):
        return {"method": "occlusion", "score": parts.score, "cells": parts.cells.tolist()}
    words = [[{"text": piece.text, "weight": piece.weight} for piece in text] for text in parts.texts]
    figures = {"score": parts.score, "blank_score": parts.blank_score, "marks": parts.marks, "gap": parts.gap}
    return {"method": "integrated-gradients", **figures, "texts": words}


def _blocks(one: Explanation) -> list[Block]:
    answer = ", ".join(map(str, one.answer)) or "none" if isinstance(one.answer, list) else str(one.answer)
    parts, heading = one.attribution, Heading(f"Row {one.row + 1}: {answer}")
    if isinstance(parts, RegionAttribution):
        sentence = Paragraph(f"Score {parts.score:+.2f} ({one.score_is}).")
        return [heading, sentence, heat_map(f"Cells of row {one.row + 1}", parts.shown, parts.cells)]
    sentence = Paragraph(
        f"Score {parts.score:+.2f} ({one.score_is}); {parts.blank_score:+.2f} for a blank text. "
        f"Weights miss the difference by {abs(parts.gap):.3f}."
    )
    drawn = [
        weighted_words(f"Words of row {one.row + 1}", [(piece.text, piece.weight) for piece in text])
        for text in parts.texts
    ]
    return [heading, sentence, *drawn, _largest(parts)]


def _largest(parts: TextAttribution) -> Table:
    """List the words that weigh most."""
    words: list[Piece] = sorted((p for text in parts.texts for p in text), key=lambda p: -abs(p.weight))[:MOST_WORDS]
    return Table(("Word", "Weight"), [Row((" ".join(piece.text.split()), f"{piece.weight:+.3f}")) for piece in words])
