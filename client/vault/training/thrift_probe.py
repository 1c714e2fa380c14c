"""Show that a way to need less memory leaves every gradient as it is, to the bit.

When memory runs out may depend on who is there: on which lengths were drawn, say. If falling back changed a bit of the
other records' gradients, a record's presence would show in their sum. So a way that changes a bit is never taken.

Layers may be computed again: the same shapes run through the same kernels. Half the records at once would be other
shapes, in which now and then a record's last bits differ; no probe of some records shows in which.
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


def thrifts(trainer: PrivateTrainer, *, cache: Path | None, hostile: Vector | None = None) -> int:
    """Return how many ways to need less memory keep every bit of gradients: 1 if layers may be computed again, or 0.

    Guarantee: a way to need less memory that changes a bit of a gradient is never taken.
    Guarantee: no way to need less memory changes the shape of a physical batch, on which kernels' bits depend.

    Args:
        trainer: as it will train; its weights are restored afterwards.
        cache: folder for a temporary activation cache, if training will use one.
        hostile: an adapter that makes rounding errors as large as a task may, beside a random one.
    """
    if trainer.checkpointing or not trainer.linear:
        return 0
    model, before, real = trainer.model, trainer.model.packed(), trainer.activations
    rounds = (True, False) if model.head_strategy.measures else (False,)
    try:
        randomise(model)
        random = model.packed()
        for adapter in (random,) if hostile is None else (random, finite(trainer, hostile)):
            model.load(adapter)
            if not all(_keeps_bits(trainer, cache, measures=measures) for measures in rounds):
                return 0
        return 1
    finally:
        trainer.thrift = 0
        trainer.train_on(real)
        model.load(before)


def _keeps_bits(trainer: PrivateTrainer, cache: Path | None, *, measures: bool) -> bool:
    with trainer.measuring(measures), scratch(cache) as folder:
        records = trainer.model.kind.synthetic(trainer.model.config, lengths_of_batches(trainer), variant=0)
        if trainer.activations.records.units is not None:
            records = with_units(records, np.arange(len(records)))
        trainer.train_on(opened(trainer, records, folder))
        everybody = np.arange(len(records))
        trainer.thrift = 0
        usual = gradients_of(trainer, everybody)
        trainer.thrift = 1
        again = gradients_of(trainer, everybody)
        return all(same_bits(usual[index], again[index]) for index in everybody.tolist())
