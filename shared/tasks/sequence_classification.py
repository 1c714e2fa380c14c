"""Sequence classification: one text, one label, a linear head on mean-pooled features.

The mean is pooled and brought to one length because an encoder's own pooler is often untrained (MiniLM's is) and
because equal lengths keep gradients comparable, which clipping rewards: under epsilon 3 the pooler lost 35 points in
one trial where the mean lost none.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

FEATURE_NORM = 4.0
CHARACTERS_PER_TOKEN = 100  # longer texts are cut before tokenisation, so that a 2 MB cell costs no more than others


class SequenceClassification:
    """The kind `sequence-classification`."""

    def __init__(self, labels: Sequence[str], max_length: int) -> None:
        self.labels = tuple(labels)
        self.max_length = max_length

    def head(self, width: int) -> nn.Linear:
        """A zero head: every record starts at the same loss, and the public start costs nothing to agree on."""
        head = nn.Linear(width, len(self.labels))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """Mean over real tokens, scaled to length 4: (records, tokens, width) to (records, width)."""
        weights = mask.to(states.dtype).unsqueeze(-1)
        mean = (states * weights).sum(1) / weights.sum(1)
        return FEATURE_NORM * F.normalize(mean, dim=-1)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy per record, never averaged over the batch; 0 for target -1."""
        return F.cross_entropy(outputs, targets, reduction="none", ignore_index=-1)

    def tokens(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids, cut at `max_length`."""
        cut = [text[: CHARACTERS_PER_TOKEN * self.max_length] for text in texts]
        if not cut:
            return []
        encoded = tokenizer(cut, truncation=True, max_length=self.max_length, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def targets(self, texts: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
        """Index of the label in the study's list; -1 for an unknown label or an empty text."""
        index = {label: number for number, label in enumerate(self.labels)}
        pairs = zip(texts, labels, strict=True)
        return np.array([index.get(label.strip(), -1) if text.strip() else -1 for text, label in pairs], dtype=np.int64)

    def metrics(self, predicted: NDArray[np.int64], targets: NDArray[np.int64]) -> dict[str, float]:
        """Accuracy, and F1 averaged over the labels."""
        usable = targets >= 0
        truth, guess = targets[usable], predicted[usable]
        if not len(truth):
            return {"accuracy": 0.0, "macro_f1": 0.0}
        f1 = f1_score(truth, guess, average="macro", labels=np.arange(len(self.labels)), zero_division=0.0)
        return {"accuracy": float(accuracy_score(truth, guess)), "macro_f1": float(f1)}

    def predictions(self, outputs: Tensor) -> NDArray[np.int64]:
        """Most likely label per record."""
        return torch.argmax(outputs, dim=1).cpu().numpy().astype(np.int64)
