"""Integrated gradients over the words of a text: how much of an answer's score each word gives.

Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (2017), by captum.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shared.adapted_model.model import AdaptedModel
from shared.records.batches import Batch
from shared.tasks.texts import tokenise

STEPS, STEPS_AT_ONCE = 64, 16
WORD = re.compile(r"\S+\s*")
Span = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """A word with what follows it, and its part of the score: above zero, it speaks for the answer."""

    text: str
    weight: float


@dataclass(frozen=True)
class TextAttribution:
    """The parts of a score, over one text or two."""

    texts: list[list[Piece]]
    """Words of each text of the record, in order; what was cut off weighs nothing."""
    score: float
    blank_score: float
    """Score of a text of the same length in which every token is blank."""
    marks: float
    """Part of the tokens that the model puts around a text, and of all that stand for no word."""

    @property
    def gap(self) -> float:
        """Difference between the sum of all parts and score - blank_score: the error of integration, about zero."""
        parts = sum(piece.weight for text in self.texts for piece in text) + self.marks
        return parts - (self.score - self.blank_score)


def attribute_words(
    model: AdaptedModel, batch: Batch, score: Callable[[Tensor], Tensor], texts: Sequence[str], *, max_length: int
) -> TextAttribution:
    """Compute each word's part of the score by integrated gradients over the input embeddings.

    Args:
        model: holds the adapter.
        batch: this one record.
        score: from outputs to a score per record.
        texts: the record's text, or its pair.
        max_length: tokens that the task reads.
    """
    from captum.attr import LayerIntegratedGradients

    tokenizer = model.kind.processor(model.base_files)
    ids, others = batch["ids"].long(), {name: tensor for name, tensor in batch.items() if name != "ids"}
    blank_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    real = torch.ones_like(ids, dtype=torch.bool) if "mask" not in batch else batch["mask"].bool()
    special = torch.tensor([tokenizer.all_special_ids], device=ids.device)
    marks = (ids.unsqueeze(-1) == special).any(-1) | ~real
    blank = torch.where(marks, ids, torch.full_like(ids, blank_id))

    def scores(tokens: Tensor) -> Tensor:
        count = len(tokens)
        spread = {name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in others.items()}
        return score(model({**spread, "ids": tokens}))

    embeddings: Any = model.base
    parts = LayerIntegratedGradients(scores, embeddings.get_input_embeddings()).attribute(
        ids, baselines=blank, n_steps=STEPS, internal_batch_size=STEPS_AT_ONCE
    )
    weights = parts.double().sum(-1)[0].tolist()
    with torch.no_grad():
        now, before = float(score(model(batch))), float(score(model({**batch, "ids": blank})))
    pairs = [texts[1]] if len(texts) == 2 else None
    encodings = tokenise([texts[0]], tokenizer, max_length=max_length, pairs=pairs).encodings
    words, rest = _by_word(texts, weights, encodings[0] if encodings else None, tokenizer, ids[0].tolist())
    return TextAttribution(words, now, before, rest)


def _by_word(
    texts: Sequence[str], weights: Sequence[float], encoding: Any, tokenizer: Any, ids: Sequence[int]
) -> tuple[list[list[Piece]], float]:
    """Sum the weights of tokens over words; return words by text, and what no word holds."""
    if encoding is None:  # a tokenizer written in Python does not say where its tokens stand
        special = set(tokenizer.all_special_ids)
        named = list(zip(tokenizer.convert_ids_to_tokens(list(ids)), ids, weights, strict=True))
        return [[Piece(f"{t} ", w) for t, i, w in named if i not in special]], sum(
            w for _, i, w in named if i in special
        )
    spans: list[list[Span]] = [[match.span() for match in WORD.finditer(text)] for text in texts]
    sums = [[0.0] * len(words) for words in spans]
    rest = 0.0
    places = zip(encoding.sequence_ids, encoding.offsets, strict=True)
    for token, (number, (start, end)) in enumerate(places):
        word = None if number is None or start == end else _word_at(spans[number], end - 1)
        if word is None:
            rest += weights[token]
        else:
            sums[number][word] += weights[token]
    rest += sum(weights[len(encoding.offsets) :])  # padding
    pieces = [
        [Piece(text[slice(*span)], weight) for span, weight in zip(words, summed, strict=True)]
        for text, words, summed in zip(texts, spans, sums, strict=True)
    ]
    return pieces, rest


def _word_at(spans: Sequence[Span], place: int) -> int | None:
    """Return the index of the word that holds a character of its text; a token may begin with the space before it."""
    return next((index for index, (start, end) in enumerate(spans) if start <= place < end), None)
