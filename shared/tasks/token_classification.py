"""Token classification: words with one tag each; a linear head on every token, read at each word's first token."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from shared.base_models.load import width_of
from shared.errors import SettingsError
from shared.records.batches import Batch
from shared.records.ragged import Encoded, Problem, Records, ragged
from shared.study import tasks as declarations
from shared.tasks.kind import Column, Evidence, OutputKind, Rows, random_ids, strings, zero_linear
from shared.tasks.texts import nothing_to_read, token_features, token_losses, tokenise

OUTSIDE = "O"
ENTITY_TAG = re.compile(r"O|[BI]-.+")


class TokenClassification(OutputKind):
    """The kind `token-classification`."""

    columns = (Column("tokens"), Column("tags"))

    def __init__(self, task: declarations.TokenClassification) -> None:
        self.task, self.labels = task, tuple(task.labels)
        self.fills = {"ids": 0, "target": -1}
        self.entities = all(ENTITY_TAG.fullmatch(label) for label in task.labels)
        self.metric = "entity_f1" if self.entities else "accuracy"
        self._index = {label: number for number, label in enumerate(task.labels)}

    def encode_rows(self, rows: Rows, processor: Any) -> Encoded:
        """Encode token ids, and each word's tag at its first token; other tokens have no tag.

        A cell holds words with spaces between them, or a JSON list. A row is unusable without words, with another
        number of tags than words, or with a tag that the study does not name.
        """
        words, tags = ([split_cell(cell) for cell in strings(rows[name])] for name in ("tokens", "tags"))
        sentences = [" ".join(part) for part in words]
        tokenised = tokenise(sentences, processor, max_length=self.task.max_length)
        if words and tokenised.encodings is None:
            raise SettingsError(f"Expected a fast tokenizer, got {type(processor).__name__}.")
        unread = nothing_to_read(sentences, tokenised)
        reasons = [self._objection(*pair) or unread.get(row) for row, pair in enumerate(zip(words, tags, strict=True))]
        numbers = [
            [] if reason else [self._index[tag] for tag in part] for reason, part in zip(reasons, tags, strict=True)
        ]
        places = [first_tokens(*pair) for pair in zip(words, tokenised.encodings or (), strict=True)]
        fields = {
            "ids": ragged(tokenised.ids, np.int32),
            "target": ragged([_at_places(*pair) for pair in zip(places, numbers, strict=True)], np.int16),
            "word": ragged(places, np.int32),
            "tags": ragged(numbers, np.int16),
        }
        problems = [Problem(row, reason) for row, reason in enumerate(reasons) if reason]
        usable = np.array([reason is None for reason in reasons], dtype=bool)
        return Encoded(Records(fields, usable), (*tokenised.problems, *problems))

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make a head with one output per tag."""
        return zero_linear(width_of(config), len(self.task.labels))

    def features(self, states: Tensor, batch: Batch) -> Tensor:
        """Scale every token's state to one length."""
        del batch
        return token_features(states)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the cross-entropy, averaged over the words of each record."""
        return token_losses(outputs, batch["target"])

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return predicted and true tags of all words; a word that was cut off counts as outside of any entity."""
        del batch
        likeliest = outputs.argmax(-1).cpu().numpy()
        return [self._one(records, index, row) for index, row in zip(indices, likeliest, strict=True)]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute accuracy over words; if tags name entities, also F1, precision and recall of entities (seqeval)."""
        right = [guess == truth for one in evidence for guess, truth in zip(*one, strict=True)]
        accuracy = {"accuracy": sum(right) / max(1, len(right))}
        return (_entity_metrics(evidence) | accuracy) if self.entities else accuracy

    def score(self, evidence: Evidence) -> float:
        """Return the share of words with the right tag."""
        guess, truth = evidence
        return sum(a == b for a, b in zip(guess, truth, strict=True)) / len(truth) if len(truth) else 0.0

    def synthetic(self, config: PretrainedConfig, lengths: Sequence[int], *, variant: int) -> Records:
        """Make random tokens, each of them a word, with tags in turn."""
        shifts = [n + (variant if n == 0 else 0) for n in range(len(lengths))]
        tags = [(np.arange(n) + shift) % len(self.task.labels) for n, shift in zip(lengths, shifts, strict=True)]
        fields = {
            "ids": ragged(random_ids(config, lengths, variant=variant), np.int32),
            "target": ragged(tags, np.int16),
            "word": ragged([np.arange(n) for n in lengths], np.int32),
            "tags": ragged(tags, np.int16),
        }
        return Records(fields, np.ones(len(lengths), dtype=bool))

    def counts(self, records: Records) -> dict[str, int]:
        """Count the words of usable records by tag."""
        seen = Counter(tag for i in np.flatnonzero(records.usable).tolist() for tag in records["tags"][i].tolist())
        return {label: seen[number] for number, label in enumerate(self.task.labels)}

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always predicting the most frequent tag."""
        seen = Counter[str]()
        for part in train:
            seen.update(self.counts(part))
        guess, labels = seen.most_common(1)[0][0], self.task.labels
        truths = [[labels[tag] for tag in held_out["tags"][i]] for i in np.flatnonzero(held_out.usable).tolist()]
        return [([guess] * len(truth), truth) for truth in truths]

    def _objection(self, words: list[str], tags: list[str]) -> str | None:
        if not any(word.strip() for word in words):
            return "it has no words"
        if len(words) != len(tags):
            return f"it has {len(words)} words and {len(tags)} tags"
        unknown = next((tag for tag in tags if tag not in self._index), None)
        return None if unknown is None else f"its tag {unknown[:40]!r} is none of the study's"

    def _one(self, records: Records, index: int, likeliest: NDArray[np.int64]) -> Evidence:
        labels, truth, word = self.task.labels, records["tags"][index], records["word"][index]
        guess = [OUTSIDE] * len(truth)
        for place in np.flatnonzero(word >= 0).tolist():
            guess[word[place]] = labels[likeliest[place]]
        return guess, [labels[tag] for tag in truth]


def split_cell(cell: str) -> list[str]:
    """Split a cell into words: a JSON list of strings, or words with spaces between them."""
    if cell.lstrip().startswith("["):
        try:
            listed = json.loads(cell)
        except ValueError:
            return cell.split()
        if isinstance(listed, list) and all(isinstance(word, str) for word in listed):
            return listed
    return cell.split()


def first_tokens(words: Sequence[str], encoding: Any) -> NDArray[np.int32]:
    """Return for each first token of a word the word's number, and -1 for all other tokens (tokens,)."""
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    word_of, seen = np.full(len(encoding.ids), -1, dtype=np.int32), set[int]()
    for place, ((start, end), special) in enumerate(zip(encoding.offsets, encoding.special_tokens_mask, strict=True)):
        # by its last character: some tokenizers count the space before a word as its beginning
        word = int(np.searchsorted(starts, end - 1, side="right")) - 1
        if not special and end > start and word not in seen:
            seen.add(word)
            word_of[place] = word
    return word_of


def _at_places(places: NDArray[np.int32], tags: Sequence[int]) -> list[int]:
    return [tags[word] if 0 <= word < len(tags) else -1 for word in places.tolist()]


def _entity_metrics(evidence: Sequence[Evidence]) -> dict[str, float]:
    from seqeval.metrics import f1_score, precision_score, recall_score

    if not evidence:
        return {"entity_f1": 0.0, "entity_precision": 0.0, "entity_recall": 0.0}
    guess, truth = ([list(part) for part in parts] for parts in zip(*evidence, strict=True))
    return {
        "entity_f1": float(f1_score(truth, guess, zero_division=0)),
        "entity_precision": float(precision_score(truth, guess, zero_division=0)),
        "entity_recall": float(recall_score(truth, guess, zero_division=0)),
    }
