"""How good a model is on records: evidence for each usable one, and from all of it the task's metrics."""

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
    """What was seen on one dataset."""

    evidence: list[Evidence]
    """Of usable records, in their order."""
    loss: float
    """Mean over usable records; 0 without any, or if it was not asked for."""


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
        model: with the adapter to be judged.
        records: of the model's task.
        tokens: the most in one physical batch.
        batch_of: where batches come from, such as a cache of activations; default: the records themselves.
        sizes: of the records, as `batches.shapes` gives them; default: computed.
        with_loss: also compute the loss, which is one more pass.
        on_batch: called before every physical batch; what it raises ends the judging.
    """
    kind, device = model.kind, next(model.parameters()).device
    batch_of = batch_of or (lambda part: collate(records, part, kind.fills, device))
    sizes = shapes(records, kind.fills) if sizes is None else sizes
    found: dict[int, Evidence] = {}
    total = 0.0
    with torch.no_grad():
        usable = np.flatnonzero(records.usable)
        for part in physical(sizes, usable, tokens=tokens, fixed=kind.fixed_tokens):
            on_batch()
            batch = batch_of(part)
            found |= zip(part, kind.evidence(model, batch, records, part), strict=True)
            if with_loss:
                total += float(model.losses(batch).double().sum())
    evidence = [found[index] for index in usable.tolist()]
    return Evaluated(evidence, total / max(1, len(evidence)))
