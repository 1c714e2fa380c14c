"""Share the code of kinds with one label for each image or recording."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from shared.base_models.load import width_of
from shared.records.batches import Batch
from shared.records.ragged import Problem, Records
from shared.study.tasks import FEATURE_NORM
from shared.tasks.kind import Evidence, OutputKind, zero_linear
from shared.tasks.sequence_classification import OneLabel, spelling_notes


class OneLabelKind(OutputKind):
    """A kind whose records have one label each, in the field `target`."""

    peft_task = None
    pooled = True
    metric, higher_is_better = "accuracy", True

    def __init__(self, labels: Sequence[str]) -> None:
        self.goal = OneLabel(labels)
        self.labels = self.goal.labels

    def targets(self, labels: Sequence[str]) -> tuple[list[int], list[Problem]]:
        """Return the index of each label; -1 and a problem for an unknown one."""
        indices = [self.goal.target(label) for label in labels]
        unknown = [row for row, target in enumerate(indices) if target is None]
        problems = [Problem(row, f"its label {labels[row][:40]!r} is none of the study's") for row in unknown]
        return [-1 if target is None else target for target in indices], problems + spelling_notes(self.goal, labels)

    def head(self, config: PretrainedConfig) -> nn.Module:
        """Make a head with one output per label."""
        return zero_linear(width_of(config), self.goal.outputs)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the cross-entropy of each record."""
        return self.goal.losses(outputs, batch["target"])

    def compare(self, outputs: Tensor, batch: Batch, records: Records, indices: Sequence[int]) -> list[Evidence]:
        """Return predicted and true label of each record, by index."""
        del batch
        predicted = self.goal.predicted(outputs)
        return [(guess, self.goal.truth(records["target"][i])) for guess, i in zip(predicted, indices, strict=True)]

    def prediction(self, evidence: Evidence) -> str:
        """Return the predicted label itself."""
        return self.goal.labels[evidence[0]]

    def truth(self, evidence: Evidence) -> str:
        """Return the true label itself."""
        return self.goal.labels[evidence[1]]

    def metrics(self, evidence: Sequence[Evidence]) -> dict[str, float]:
        """Compute accuracy, and F1 averaged over the labels."""
        return self.goal.metrics(evidence)

    def score(self, evidence: Evidence) -> float:
        """Return 1 for the right label, otherwise 0."""
        return self.goal.score(*evidence)

    def counts(self, records: Records) -> dict[str, int]:
        """Count usable records by label."""
        return self.goal.counts([records["target"][i] for i in np.flatnonzero(records.usable).tolist()])

    def constant(self, train: Sequence[Records], held_out: Records) -> list[Evidence] | None:
        """Return evidence of always predicting the most frequent label."""
        seen = [part["target"][i] for part in train for i in np.flatnonzero(part.usable).tolist()]
        guess = self.goal.constant(seen)
        return [(guess, self.goal.truth(held_out["target"][i])) for i in np.flatnonzero(held_out.usable).tolist()]


def mean_of_tokens(states: Tensor) -> Tensor:
    """Average over tokens and scale to one length: (records, tokens, width) to (records, width)."""
    return FEATURE_NORM * F.normalize(states.mean(1), dim=-1)
