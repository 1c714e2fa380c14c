"""Show which ways to need less memory leave every gradient as it is, to the bit.

When memory runs out may depend on who is there: on which lengths were drawn, say. If falling back changed a bit of the
other records' gradients, a record's presence would show in their sum. So a way that changes a bit is never taken.
"""

from pathlib import Path

import numpy as np

from client.vault.training.gradient_probe import (
    finite,
    gradients_of,
    lengths_of_batches,
    opened,
    randomise,
    same_bits,
    scratch,
)
from client.vault.training.trainer import PrivateTrainer
from shared.protocol.messages import Vector
from shared.records.ragged import with_units

MOST_HALVINGS = 12


def thrifts(trainer: PrivateTrainer, *, cache: Path | None, hostile: Vector | None = None) -> int:
    """Return how many ways to need less memory, of those that a trainer has in turn, keep every bit of gradients.

    Guarantee: a way to need less memory that changes a bit of a gradient is never taken.

    Args:
        trainer: as it will train; its weights are restored afterwards.
        cache: folder for a temporary activation cache, if training will use one.
        hostile: an adapter that makes rounding errors as large as a task may, beside a random one.
    """
    model, before, real = trainer.model, trainer.model.packed(), trainer.activations
    rounds = (True, False) if model.head_strategy.measures else (False,)
    try:
        randomise(model)
        random = model.packed()
        shown = MOST_HALVINGS + 1
        for adapter in (random,) if hostile is None else (random, finite(trainer, hostile)):
            model.load(adapter)
            for measures in rounds:
                shown = min(shown, _shown(trainer, cache, measures=measures))
        return shown
    finally:
        trainer.thrift = 0
        trainer.train_on(real)
        model.load(before)


def _shown(trainer: PrivateTrainer, cache: Path | None, *, measures: bool) -> int:
    with trainer.measuring(measures), scratch(cache) as folder:
        records = trainer.model.kind.synthetic(trainer.model.config, lengths_of_batches(trainer), variant=0)
        if trainer.activations.records.units is not None:
            records = with_units(records, np.arange(len(records)))
        trainer.train_on(opened(trainer, records, folder))
        everybody = np.arange(len(records))
        trainer.thrift = 0
        usual = gradients_of(trainer, everybody)
        for trainer.thrift in range(1, MOST_HALVINGS + 2):
            with_less = gradients_of(trainer, everybody)
            if not all(same_bits(usual[index], with_less[index]) for index in everybody.tolist()):
                return trainer.thrift - 1
            if all(trainer.rows_of(tuple(shape)) == 1 for shape in _shapes(trainer)):
                return trainer.thrift
        return trainer.thrift


def _shapes(trainer: PrivateTrainer) -> list[list[int]]:
    shapes: list[list[int]] = np.unique(trainer.activations.canonical_shapes(trainer.length_step), axis=0).tolist()
    return shapes
