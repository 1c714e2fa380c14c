"""Question answering: the answer is a piece of the context; a linear head finds where it begins and ends."""

import json
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from shared.base_models.load import width_of
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged, text, texts
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Evidence, OutputKind, Rows, random_ids, strings
from shared.tasks.texts import nothing_to_read, token_features, tokenise

NOWHERE = -1e9
MOST_ANSWERS = 100
"""Right answers that are kept of a cell: each is searched in the whole context."""
ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Span(NamedTuple):
    """Place of an answer in its context, in characters."""

    start: int
    end: int


class QuestionAnswering(OutputKind):
    """The kind `question-answering`."""

    metric = "f1"
    columns = (Column("question"), Column("context"), Column("answer"))

    def __init__(self, task: declarations.QuestionAnswering) -> None:
        self.task = task
        self.fills = {"ids": 0, "types": 0, "inside": 0, "target": None}

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode question and context as token ids, and the first and last token of the answer.

        A cell of `answer` holds a text, which is searched in the context, or SQuAD's JSON object with lists `text` and
        `answer_start`; of these the first is learned, and any counts as right. A row without a question, or whose
        answer is not in its context, is unusable. If the answer lies beyond the tokens kept, nothing is learned and no
        answer will be right.
        """
        questions, contexts, cells = (strings(rows[name]) for name in ("question", "context", "answer"))
        tokenised = tokenise(questions, processor, max_length=self.task.max_length, pairs=contexts)
        if questions and tokenised.encodings is None:
            raise SettingsError(f"Expected a fast tokenizer, got {type(processor).__name__}.")
        problems, encodings = list(tokenised.problems), tokenised.encodings or ()
        answers = [answers_in(context, cell) for context, cell in zip(contexts, cells, strict=True)]
        targets = [tokens_of(each[0], one) if each else None for each, one in zip(answers, encodings, strict=True)]
        unread = nothing_to_read(questions, tokenised, name="question")
        usable = [bool(each) and row not in unread for row, each in enumerate(answers)]
        for row, (each, target) in enumerate(zip(answers, targets, strict=True)):
            if row in unread:
                problems.append(Problem(row, unread[row]))
            elif not each:
                problems.append(Problem(row, f"its answer {cells[row][:40]!r} is not in its context"))
            elif target is None:  # worse than that its context was cut
                problems = [problem for problem in problems if problem.row != row]
                problems.append(Problem(row, "its answer lies beyond the tokens that are kept"))
        spans = [context_spans(one) for one in encodings]
        truths = [json.dumps([context[s:e] for s, e in each]) for context, each in zip(contexts, answers, strict=True)]
        fields = {
            "ids": ragged(tokenised.ids, np.int32),
            "types": ragged(tokenised.types or [[0] * len(ids) for ids in tokenised.ids], np.int8),
            "inside": ragged([span[:, 1] > 0 for span in spans], np.int8),
            "target": ragged([target or (-1, -1) for target in targets], np.int64),
            "spans": ragged([span.ravel() for span in spans], np.int32),
            "context": texts(contexts),
            "answers": texts(truths),
        }
        return Encoded(Records(fields, np.array(usable, dtype=bool)), tuple(problems))

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make a head with two outputs per token, for beginning and end of the answer; a bias would change neither."""
        head = nn.Linear(width_of(config), 2, bias=False)
        with torch.no_grad():
            head.weight.zero_()
        return head

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Scale every token's state to one length."""
        del batch
        return token_features(states)

    def answer(self, head: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Compute scores (records, tokens, 2); tokens outside the context are excluded, as an answer lies inside it."""
        scores: Tensor = head(features)
        return scores.masked_fill(batch["inside"].unsqueeze(-1) == 0, NOWHERE)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the cross-entropy of beginning and end over the context's tokens; 0 for an answer beyond them."""
        ends = F.cross_entropy(outputs, batch["target"], reduction="none", ignore_index=-1)
        return ends.mean(1)

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return the likeliest piece of each context, as text, and all right answers."""
        del batch
        scores = outputs.float().cpu().numpy()
        return [self._one(records, index, row) for index, row in zip(indices, scores, strict=True)]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute F1 over shared words, and exact matches, normalised as in SQuAD; the best right answer counts."""
        f1 = [max(word_f1(guess, truth) for truth in truths) for guess, truths in evidence]
        exact = [any(normalised(guess) == normalised(truth) for truth in truths) for guess, truths in evidence]
        return {"f1": sum(f1) / max(1, len(f1)), "exact_match": sum(exact) / max(1, len(exact))}

    def score(self, evidence: Evidence) -> float:
        """Return F1 over shared words with the best right answer; 1 for an exact match, as normalised in SQuAD."""
        guess, truths = evidence
        return max(word_f1(guess, truth) for truth in truths)

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens whose second half is the context, with answers all over it."""
        shifts = [n + (variant if n == 0 else 0) for n in range(len(lengths))]
        halves = [length // 2 for length in lengths]
        starts = [half + shift % (n - half) for half, shift, n in zip(halves, shifts, lengths, strict=True)]
        fields = {
            "ids": ragged(random_ids(config, lengths, variant=variant), np.int32),
            "types": ragged([np.arange(n) >= half for n, half in zip(lengths, halves, strict=True)], np.int8),
            "inside": ragged([np.arange(n) >= half for n, half in zip(lengths, halves, strict=True)], np.int8),
            "target": ragged([(start, n - 1) for start, n in zip(starts, lengths, strict=True)], np.int64),
            "spans": ragged([np.zeros(2 * n) for n in lengths], np.int32),
            "context": texts(["" for _ in lengths]),
            "answers": texts(['[""]' for _ in lengths]),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always giving the most frequent answer."""
        seen = Counter(_truths(part, i)[0] for part in train for i in np.flatnonzero(part.usable).tolist())
        guess = seen.most_common(1)[0][0] if seen else ""
        return [(guess, _truths(held_out, i)) for i in np.flatnonzero(held_out.usable).tolist()]

    def _one(self, records: Records, index: int, scores: NDArray[np.float32]) -> Evidence:
        spans, truths = records["spans"][index].reshape(-1, 2), _truths(records, index)
        places = np.flatnonzero(spans[:, 1] > 0)
        if not len(places):
            return "", truths
        first, last = best_piece(scores[places, 0], scores[places, 1], longest=self.task.longest_answer)
        return text(records["context"], index)[spans[places[first], 0] : spans[places[last], 1]].strip(), truths


def answers_in(context: str, cell: str) -> list[Span]:
    """Locate a cell's answers in the context; an answer that is not there is left out."""
    spans = []
    for answer, start in _candidates(cell):
        place = start if start is not None and context[start : start + len(answer)] == answer else context.find(answer)
        if answer.strip() and place >= 0:
            spans.append(Span(place, place + len(answer)))
    return spans


def context_spans(encoding: Any) -> NDArray[np.int32]:
    """Return where each token of the context begins and ends in it (tokens, 2); zeros for all other tokens."""
    second = np.array([sequence == 1 for sequence in encoding.sequence_ids], dtype=bool)
    spans = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    spans[~second] = 0
    return spans


def tokens_of(answer: Span, encoding: Any) -> tuple[int, int] | None:
    """Return the first and the last token of an answer; None if a part of it was cut off."""
    spans = context_spans(encoding)
    touched = np.flatnonzero((spans[:, 1] > answer.start) & (spans[:, 0] < answer.end))
    if not len(touched) or spans[:, 1].max() < answer.end:
        return None
    return int(touched[0]), int(touched[-1])


def best_piece(begins: NDArray[np.float32], ends: NDArray[np.float32], *, longest: int) -> tuple[int, int]:
    """Return first and last token of the likeliest piece of at most `longest` tokens."""
    together = begins[:, None] + ends[None, :]
    allowed = np.triu(np.ones_like(together)) * np.tril(np.ones_like(together), longest - 1)
    first, last = np.unravel_index(int(np.where(allowed > 0, together, -np.inf).argmax()), together.shape)
    return int(first), int(last)


def normalised(answer: str) -> str:
    """Return an answer in lower case, without punctuation, articles and extra spaces (SQuAD's evaluation, v1.1)."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(WITHOUT_PUNCTUATION)).split())


def word_f1(guess: str, truth: str) -> float:
    """Compute the harmonic mean of precision and recall of the words that two normalised answers share."""
    guessed, true = normalised(guess).split(), normalised(truth).split()
    shared = sum((Counter(guessed) & Counter(true)).values())
    return 2 * shared / (len(guessed) + len(true)) if shared else float(guessed == true)


def _candidates(cell: str) -> list[tuple[str, int | None]]:
    if cell.lstrip().startswith("{"):
        try:
            held = json.loads(cell)
            answers, starts = held["text"], held["answer_start"]
            listed = list(zip(answers, starts, strict=True))
            return [(str(answer), int(start)) for answer, start in listed[:MOST_ANSWERS]]
        except (ValueError, KeyError, TypeError):
            pass  # it is a text that begins with a brace
    return [(cell.strip(), None)]


def _truths(records: Records, index: int) -> list[str]:
    truths: list[str] = json.loads(text(records["answers"], index))
    return truths
