"""The number that an explanation is of: how strongly the model gives its answer."""

from collections.abc import Callable

import torch
from torch import Tensor

from shared.adapted_model.model import AdaptedModel
from shared.study.tasks import SequenceClassification, Task

LOG_ODDS, RATING = "log odds of the answer", "rating, on a scale from -1 to 1"


def score_name(task: Task) -> str:
    """Return what the score of a task is, with its unit."""
    return RATING if isinstance(task, SequenceClassification) and task.problem == "rating" else LOG_ODDS


def score_of(task: Task, model: AdaptedModel, batch: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function from outputs (records, outputs) to one score per record, of the answer to this one record.

    Of one label among several it is the log odds of that label, log p / (1 - p): a label's own output says little where
    all outputs move together. Of many labels it is that of the likeliest one. A rating is its own score.
    """
    if score_name(task) == RATING:
        return lambda outputs: outputs[:, 0]
    with torch.no_grad():
        answer = int(model(batch)[0].argmax())
    if isinstance(task, SequenceClassification) and task.problem == "multi-label":
        return lambda outputs: outputs[:, answer]

    def log_odds(outputs: Tensor) -> Tensor:
        others = torch.cat([outputs[:, :answer], outputs[:, answer + 1 :]], dim=1)
        return outputs[:, answer] - others.logsumexp(1)

    return log_odds
