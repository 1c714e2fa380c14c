"""A private round as a node runs it, over records that lie ready."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import AdaptedModel, build
from shared.privacy.noise_schedule import declared_size, schedule_of
from shared.records.ragged import Records, load
from shared.study.declaration import Study
from simulations.benchmarks.speed.drawn import Drawn
from simulations.benchmarks.stock.peft_model import Shapes, shapes_of

CACHE_BYTES = 2**30


def open_trainer(study: Study, model: AdaptedModel, records: Records, cache: Path) -> PrivateTrainer:
    """Open a trainer, whose frozen layers run once on every record."""
    device = next(model.parameters()).device
    activations = open_activations(model, records, device, folder=cache, limit_bytes=CACHE_BYTES)
    return PrivateTrainer(
        model,
        activations,
        schedule_of(study),
        divisor_size=declared_size(len(records)),
        learning_rates=LearningRates(study.training.learning_rate, study.training.adapter_learning_rate),
        micro_batch_tokens=study.performance.micro_batch_tokens,
    )


def train_once(trainer: PrivateTrainer, batches: Sequence[NDArray[np.int64]]) -> None:
    """Train one round over these batches, from the adapter as it is."""
    received = trainer.model.packed()
    trainer.train_round(received, factors=[1.0] * len(batches), randomness=Drawn(batches))


def first_round(study: Study, records: Path, batches: Sequence[NDArray[np.int64]]) -> Shapes:
    """Do everything from loading the base model to the end of a round; return the update."""
    with tempfile.TemporaryDirectory() as cache:
        trainer = open_trainer(study, build(study), load(records), Path(cache))
        train_once(trainer, batches)
        return shapes_of(trainer.model)
