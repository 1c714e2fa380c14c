"""Measure how long a private step takes on this machine, on synthetic records, before any data is there."""

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.vault.training.randomness import OsRandomness, StepRandomness
from client.vault.training.round_trainer import device_for
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import activations_for
from shared.adapted_model.model import AdaptedModel, build
from shared.privacy.noise_schedule import schedule_of
from shared.records.ragged import Records, with_units
from shared.study.declaration import Study
from shared.study.sections import RECORD

FEW, MANY, REPEATS = 8, 40, 3
LONGEST = 128
"""Tokens, where a task says no length of its own."""


@dataclass(frozen=True)
class StepTime:
    """The time of a step by its batch size: a straight line through two measurements."""

    step_s: float
    """Of an empty batch: noise and bookkeeping."""
    record_s: float
    """Of each record more in a batch."""
    frozen_layers_s: float
    """Once per record, for its frozen activations; 0 if none are kept."""

    def minutes(self, *, steps: int, batch: float) -> float:
        """Return the minutes of so many steps with so many records each."""
        return steps * (self.step_s + batch * self.record_s) / 60

    def minutes_before(self, *, records: float) -> float:
        """Return the minutes that the frozen layers take once, before the first round."""
        return records * self.frozen_layers_s / 60


def time_step(study: Study, *, tokens: int | None = None) -> StepTime:
    """Measure real private steps of this study's model and adapter on this machine, with nobody's records.

    Args:
        study: as declared.
        tokens: of a record; default: the most that the task allows. Images and recordings have a length of their own.
    """
    model = build(study).to(device_for(study.performance.device))
    records = model.kind.synthetic(model.config, [tokens or longest(study)] * MANY, variant=0)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        trainer = _trainer(study, model, records, Path(folder) if study.performance.activation_cache else None)
        frozen_layers_s = (time.monotonic() - started) / MANY if model.has_frozen_layers else 0.0
        few, many = (_seconds(trainer, count) for count in (FEW, MANY))
    record_s = max(0.0, (many - few) / (MANY - FEW))
    return StepTime(max(0.0, few - FEW * record_s), record_s, frozen_layers_s)


def longest(study: Study) -> int:
    """Return the tokens of the longest record that the task admits."""
    parts = getattr(study.task, "tasks", {"": study.task}).values()
    return max(int(getattr(part, "max_length", LONGEST)) for part in parts)


def _trainer(study: Study, model: AdaptedModel, records: Records, cache: Path | None) -> PrivateTrainer:
    if study.privacy.unit != RECORD:
        records = with_units(records, np.arange(len(records)))
    device = next(model.parameters()).device
    rates = LearningRates(study.training.learning_rate, study.training.adapter_learning_rate)
    return PrivateTrainer(
        model,
        activations_for(model, records, device, study.performance, cache),
        replace(schedule_of(study), shared=False),  # a step with a share of the noise is as long as one with all of it
        divisor_size=math.ceil(MANY / study.privacy.sampling_rate),
        learning_rates=rates,
        micro_batch_tokens=study.performance.micro_batch_tokens,
        precision=study.performance.precision,
    )


def _seconds(trainer: PrivateTrainer, records: int) -> float:
    start, taken = trainer.model.packed(), []
    for _ in range(REPEATS):
        started = time.monotonic()
        trainer.train_round(start, factors=[1.0], randomness=FirstRecords(records))
        taken.append(time.monotonic() - started)
    return min(taken)


class FirstRecords:
    """Draws the same batch every time, with real noise; only for timing a step."""

    def __init__(self, records: int) -> None:
        self._records = records

    def step(self) -> StepRandomness:
        """Return a step over the first records."""
        return _FirstRecordsOfStep(self._records, OsRandomness().step())


class _FirstRecordsOfStep:
    def __init__(self, records: int, drawn: StepRandomness) -> None:
        self._records, self._drawn = records, drawn

    def poisson_batch(self, count: int, sampling_rate: float) -> NDArray[np.int64]:
        """Return the first records, after the cipher's work that a real draw would take."""
        self._drawn.poisson_batch(count, sampling_rate)
        return np.arange(self._records)

    def discrete_gaussian(self, count: int, scale: float) -> NDArray[np.int64]:
        """Draw real noise."""
        return self._drawn.discrete_gaussian(count, scale)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Draw real numbers to round with."""
        return self._drawn.uniforms(count)
