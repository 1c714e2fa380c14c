"""The registry of task kinds, and what a kind must provide."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from shared.study import Task
from shared.tasks.sequence_classification import SequenceClassification


class TaskKind(Protocol):
    """One kind of task. Nothing in it may look at two records at once, or at all records to prepare one."""

    def head(self, width: int) -> nn.Linear:
        """A fresh trainable head, all zeros, for features of `width`."""
        ...

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool hidden states (records, tokens, width) into (records, width)."""
        ...

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """One loss per record (records,); a record with target -1 costs 0."""
        ...

    def tokens(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids per record."""
        ...

    def targets(self, texts: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
        """Target per record; -1 for a record that cannot be used."""
        ...

    def metrics(self, predicted: NDArray[np.int64], targets: NDArray[np.int64]) -> dict[str, float]:
        """Named metrics in [0, 1] over usable records."""
        ...


def task_kind(task: Task) -> TaskKind:
    """The kind that a study names."""
    return {"sequence-classification": SequenceClassification}[task.kind](task.labels, task.max_length)
