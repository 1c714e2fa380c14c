"""Explain answers of a finished model, row by row, by the method that suits its task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shared.adapted_model.finished import FinishedModel
from shared.errors import SettingsError
from shared.explanations.regions import RegionAttribution, attribute_image, attribute_sound
from shared.explanations.scores import score_name, score_of
from shared.explanations.words import TextAttribution, attribute_words
from shared.records.batches import collate
from shared.study.tasks import SequenceClassification
from shared.tasks.audio_classification import AudioClassification
from shared.tasks.image_classification import ImageClassification
from shared.tasks.kind import Cell, strings

EXPLAINED = ("sequence-classification", "image-classification", "audio-classification")


@dataclass(frozen=True)
class Explanation:
    """An answer to one row, and what speaks for it."""

    row: int
    """Place of the row, from 0."""
    answer: Any
    """As `FinishedModel.predict` returns it."""
    score_is: str
    """What the score is, with its unit."""
    attribution: TextAttribution | RegionAttribution


def refuse_unexplained(finished: FinishedModel) -> None:
    """Refuse a task whose answers are no single score.

    Raises:
        SettingsError: the task's kind is none that is explained.
    """
    kind = finished.study.task.kind
    if kind not in EXPLAINED:
        raise SettingsError(
            f"Expected a task of kind {', '.join(EXPLAINED)}, got task.kind={kind!r}.",
            hint="Its answer is no single score whose parts could be shown.",
        )


def explain(
    finished: FinishedModel, rows: Mapping[str, Sequence[Cell]], on_row: Callable[[int], None] = lambda _row: None
) -> list[Explanation]:
    """Explain the model's answer to every row.

    Args:
        finished: the model.
        rows: as `FinishedModel.predict` takes them.
        on_row: called with the number of rows that are done.

    Raises:
        SettingsError: the task is none that is explained, or the rows are none of it.
    """
    refuse_unexplained(finished)
    answers, records = finished.predict(rows), finished.encode(rows)
    explanations = []
    for row, answer in enumerate(answers):
        batch = collate(records, [row], finished.model.kind.fills, next(finished.model.parameters()).device)
        attribution = _attribution(finished, batch, {name: cells[row] for name, cells in rows.items()})
        explanations.append(Explanation(row, answer, score_name(finished.study.task), attribution))
        on_row(row + 1)
    return explanations


def _attribution(
    finished: FinishedModel, batch: dict[str, torch.Tensor], cells: Mapping[str, Cell]
) -> TextAttribution | RegionAttribution:
    task, model = finished.study.task, finished.model
    score = score_of(task, model, batch)
    if isinstance(task, SequenceClassification):
        texts = strings([cells[name] for name in ("text", "text_pair") if name in cells])
        return attribute_words(model, batch, score, texts if task.pair else texts[:1], max_length=task.max_length)
    kind = model.kind
    if isinstance(kind, ImageClassification):
        return attribute_image(model, batch, score, kind.image_format)
    assert isinstance(kind, AudioClassification)  # noqa: S101 - `refuse_unexplained` has seen to it
    return attribute_sound(model, batch, score, kind.sound_format)
