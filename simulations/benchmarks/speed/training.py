"""Measure records per second of a whole private round on real text, beside Opacus' own recipe on those records.

Both train the same tensors of MiniLM with the same noise and sampling rate, one epoch of the site in ten noisy steps.
Ours is what a node runs: records padded with others of their length, and frozen layers run once per record and study.
The recipe pads to the study's `max_length`: 48, which hardly any of these texts exceeds, and 128, the default here and
the tutorial's own. On a GPU if there is one.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from client.vault.training.round_trainer import device_for
from client.vault.training.trainer import PrivateTrainer
from shared.adapted_model.model import build
from shared.base_models.locate import find
from shared.privacy.noise_schedule import schedule_of
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.tasks import SequenceClassification
from simulations.benchmarks.measure import Ratio, alternating, ratio_of, seconds
from simulations.benchmarks.speed.drawn import Batches, draw
from simulations.benchmarks.speed.private_round import open_trainer, train_once
from simulations.benchmarks.speed.site import SHORT, SITE, site_records, study_of
from simulations.benchmarks.speed.waiting import until_done
from simulations.benchmarks.stock.opacus_recipe import OpacusRecipe
from simulations.benchmarks.stock.peft_model import peft_model, refuse_other_tensors, shapes_of

TURNS = {"all": 3, "last:2": 5}
AIMS = {"all": "at least 2", "last:2": "at least 6"}


def rows() -> Iterator[Ratio]:
    """Measure all layers, and the top two in the first round and in later ones, for texts of either length."""
    for layers, turns in TURNS.items():
        for max_length in (SHORT, 128):
            study = study_of(layers, max_length=max_length)
            yield from compared(study, site_records(study), turns=turns)


def compared(study: Study, records: Records, *, turns: int) -> Iterator[Ratio]:
    """Measure both ways of training on these records, turn by turn.

    Raises:
        RuntimeError: they do not train the same tensors, or not with the same sigma, q and steps.
    """
    ours, recipe = PrivateRounds(study, records), _recipe(study, records)
    refuse_other_tensors(shapes_of(ours.model), shapes_of(recipe.model))

    def theirs() -> float:
        taken = seconds(until_done(recipe))
        _refuse_another_mechanism(recipe, study)
        return recipe.seen / taken

    ours.first(), theirs()  # warm up
    firsts = [ours.first() for _ in range(turns)]
    pairs = alternating(ours.later, theirs, turns)
    layers, peer = study.adapter.layers, f"Opacus' recipe, padded to {recipe.max_length}"
    yield ratio_of(f"private round of {SITE}, LoRA on {layers}", peer, pairs, unit="records/s", aim=AIMS[layers])
    if ours.model.has_frozen_layers:
        pairs = [(first, peer) for first, (_, peer) in zip(firsts, pairs, strict=True)]
        yield ratio_of(f"first private round of {SITE}, LoRA on {layers}", peer, pairs, unit="records/s")


class PrivateRounds:
    """Trains as a node does, and gives the records per second of its rounds."""

    def __init__(self, study: Study, records: Records) -> None:
        self._study, self._records, self.model = study, records, build(study).to(device_for("auto"))
        self._trainer: PrivateTrainer | None = None

    def first(self) -> float:
        """Train a round that runs the frozen layers on every record of the site first."""
        batches, started = self._draw(), time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:  # what is open stays readable without its name
            self._trainer = open_trainer(self._study, self.model, self._records, Path(cache))
            train_once(self._trainer, batches)
        return sum(map(len, batches)) / (time.perf_counter() - started)

    def later(self) -> float:
        """Train a round whose frozen activations are there already."""
        batches, trainer = self._draw(), self._trainer
        if trainer is None:
            raise RuntimeError("Expected a first round before a later one.")
        return sum(map(len, batches)) / seconds(lambda: train_once(trainer, batches))

    def _draw(self) -> Batches:
        steps, rate = self._study.training.local_steps, self._study.privacy.sampling_rate
        return draw(len(self._records), steps=steps, sampling_rate=rate)


def _recipe(study: Study, records: Records) -> OpacusRecipe:
    task, schedule = study.task, schedule_of(study)
    if not isinstance(task, SequenceClassification):
        raise RuntimeError(f"Expected a study of sequence classification, got {task.kind!r}.")
    base, adapter = find(study.model).directory, study.adapter
    return OpacusRecipe(
        peft_model(base, labels=len(task.labels), layers=adapter.layers, rank=adapter.rank).to(device_for("auto")),
        records,
        max_length=task.max_length,
        sampling_rate=schedule.sampling_rate,
        noise_multiplier=schedule.noise_multiplier,
        clip_norm=schedule.clip_norm,
    )


def _refuse_another_mechanism(recipe: OpacusRecipe, study: Study) -> None:
    schedule = schedule_of(study)
    expected = (schedule.noise_multiplier, schedule.sampling_rate, study.training.local_steps)
    if recipe.spent != expected:
        raise RuntimeError(f"Expected sigma, q and steps {expected}, got {recipe.spent}.")
