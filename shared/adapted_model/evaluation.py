"""Evaluate a model: evidence for each usable record, from which the task computes its metrics."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shared.adapted_model.model import AdaptedModel
from shared.records.batches import Batch, collate, physical, shapes
from shared.records.ragged import Records
from shared.tasks.kind import Evidence


class Evaluated(NamedTuple):
    """Evidence and loss on one dataset."""

    evidence: list[Evidence]
    """Evidence of each usable record, in order."""
    loss: float
    """Mean loss over usable records; 0 if there are none, or if no loss was wanted."""


def evaluate(
    model: AdaptedModel,
    records: Records,
    *,
    tokens: int,
    batch_of: Callable[[Sequence[int]], Batch] | None = None,
    sizes: NDArray[np.int64] | None = None,
    with_loss: bool = False,
    on_batch: Callable[[], None] = lambda: None,
) -> Evaluated:
    """Run the model on every usable record.

    Args:
        model: holds the adapter to be evaluated.
        records: records of the model's task.
        tokens: the most tokens in one physical batch.
        batch_of: makes a batch of some records, from cached activations, say; default: from the records themselves.
        sizes: padded lengths of the records, as `batches.shapes` returns them; default: computed.
        with_loss: also compute the loss, which costs one more pass.
        on_batch: called before every physical batch; an exception from it ends the evaluation.
    """
    kind, device = model.kind, next(model.parameters()).device
    batch_of = batch_of or (lambda part: collate(records, part, kind.fills, device))
    sizes = shapes(records, kind.fills) if sizes is None else sizes
    by_record: dict[int, Evidence] = {}
    total = 0.0
    with torch.no_grad():
        usable = np.flatnonzero(records.usable)
        for part in physical(sizes, usable, tokens=tokens, fixed=kind.fixed_tokens):
            on_batch()
            batch = batch_of(part)
            by_record |= zip(part, kind.evidence(model, batch, records, part), strict=True)
            if with_loss:
                total += float(model.losses(batch).double().sum())
    evidence = [by_record[index] for index in usable.tolist()]
    return Evaluated(evidence, total / max(1, len(evidence)))
