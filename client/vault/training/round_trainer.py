"""Training one round of a study, and returning what may leave.

It holds the records, the model and the study that was agreed to. Whatever it answers has the same length; whatever
goes wrong after training began becomes one code, and the cause stays in the local log.

| part of an answer | what it looks at |
|---|---|
| `refusal` | the study, the task, the model, the probe on synthetic records: public; comes before anything is paid |
| `attempt` | the records: opened, passed through the frozen layers, trained on; comes after the round is paid for |
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.vault.training.gradient_probe import LENGTHS, Verdict, ensure_exact
from client.vault.training.linear_gradients import plain_linear_layers
from client.vault.training.micro_batches import fitting_tokens, longest_declared
from client.vault.training.randomness import Randomness
from client.vault.training.rounding import encoding_for, rounded
from client.vault.training.summand import shared_summand, site_weight
from client.vault.training.thrift_probe import thrifts
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import FrozenActivations, activations_for
from shared.adapted_model.model import AdaptedModel
from shared.base_models.stateless import refuse_what_remembers
from shared.errors import ExactnessError, FedVaultError
from shared.privacy.adapter_bound import AdapterBound, worst_adapter
from shared.privacy.grid import MOST_NUMBERS
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian, SubsampledGaussian
from shared.protocol.fixed_point import as_integers
from shared.protocol.messages import EvaluationTask, Status, TrainReply, TrainTask, Vector
from shared.protocol.update_encoding import Encoding
from shared.records.batches import collate
from shared.records.ragged import Records, with_units
from shared.study.declaration import Study
from shared.study.schedule import round_factors
from shared.study.sections import RECORD

log = logging.getLogger(__name__)
REMEMBERED: "WeakKeyDictionary[AdaptedModel, str]" = WeakKeyDictionary()
"""What each model of this process was found to keep of a record for the next one: empty if nothing."""


@dataclass(frozen=True)
class Trained:
    """One round as it went, for the node's operator alone."""

    round: int
    seconds: float
    """Wall time of its steps."""
    clip_fraction: float
    """Share of the gradients that were longer than the clipping norm."""
    records_raised: int
    """Records that made the model raise, and counted as zero; the log names them."""


class RoundTrainer:
    """One dataset under one study.

    Guarantee: everything a reply says about the records went through the private trainer.
    Guarantee: every reply of a study has the same length, whether training succeeded or not.
    Guarantee: a refusal is found without looking at any record.
    Guarantee: a base model that keeps anything of a record for the next one neither trains nor evaluates.
    Guarantee: an adapter that lies beyond what honest rounds lead to is refused before anything is paid.

    Args:
        study: as agreed; phase, steps, learning rates, sigma and C come from here, never from a task.
        model: the study's model on its device.
        records: to train on, or what opens them, asked by the first attempt.
        declared_size: public size of the dataset.
        randomness: source of sampling and noise for a round number.
        cache: private folder for activations; None computes them each time.
        verdicts: folder for probe verdicts; None probes anew.
        on_step: told the number of steps done, for progress.
    """

    def __init__(
        self,
        study: Study,
        model: AdaptedModel,
        records: Records | Callable[[], Records],
        *,
        declared_size: int,
        randomness: Callable[[int], Randomness],
        cache: Path | None = None,
        verdicts: Path | None = None,
        on_step: Callable[[int], None] = lambda _step: None,
    ) -> None:
        self.study, self.model, self.declared_size = study, model, declared_size
        self.dimension, self._study_sha256 = model.layout.length, study.sha256
        self._of_zeros = Encoding.of_zeros(study.sent_as, self.dimension)
        self._bound = AdapterBound(study, model.layout, model.start)
        self._schedule = schedule_of(study)
        self.release = self._schedule.release(study.training.local_steps)
        """One round's, as the study plans it."""
        self._randomness, self._on_step = randomness, on_step
        self._cache = cache if study.performance.activation_cache else None
        self._verdicts = verdicts
        self._records = records
        self._trainer: PrivateTrainer | None = None
        self._verdict: Verdict | None = None
        self._tokens, self._thrifts = study.performance.micro_batch_tokens, 0
        self.last: Trained | None = None
        self.broken = False
        """True once a round failed: its model may hold anything."""

    def train(self, task: TrainTask) -> TrainReply:
        """Answer one task, where nobody charges for it."""
        refusal = self.refusal(task)
        return self.attempt(task, self.release) if refusal is None else self.reply(task, refusal)

    def attempt(self, task: TrainTask, release: SubsampledGaussian) -> TrainReply:
        """Train on the records, for a task that was not refused: trained, or failed whatever the cause.

        Args:
            task: of the server.
            release: as it was charged.
        """
        try:
            if self.study.federation.secure_sum is not None:
                raise ExactnessError("Expected a secure sum's round to be asked for its summand, got a bare question.")
            return self._trained(self.trainer(), task, release)
        except Exception:
            # the cause may be data: one code stands for all of them
            log.exception("Round %d failed; the server is told only that it failed.", task.round)
            self._trainer, self.broken = None, True  # whatever state the failure left goes with it
            return self.reply(task, Status.FAILED)

    def summand(self, task: TrainTask, release: SubsampledGaussian) -> NDArray[np.int64] | None:
        """Return what this node adds to a round's secure sum, for a task that was not refused, or None if that failed.

        Guarantee: a round that failed has no summand at all, so no sum counts on noise that is not in it.

        Args:
            task: of the server.
            release: as it was charged; with its roster's numbers, if the noise is shared.
        """
        started, randomness = time.monotonic(), self._randomness(task.round)
        try:
            if isinstance(release, SharedGaussian):
                trainer, weight = self.trainer(), site_weight(self.study.federation, self.declared_size)
                summand = shared_summand(trainer, task.adapter, randomness=randomness, release=release, weight=weight)
            else:
                trainer, update = self.trainer(), self._update(task, release, randomness)
                summand = as_integers(update)
        except Exception:
            log.exception("Round %d failed; the server is told only that it failed.", task.round)
            self._trainer, self.broken = None, True
            return None
        self._note(task, trainer, started)
        return summand

    def refusal(self, task: TrainTask) -> Status | None:
        """Return a public reason not to train, found before anything is spent; None if there is none."""
        if task.study_sha256 != self._study_sha256 or not 1 <= task.round <= self.study.federation.rounds:
            return Status.REFUSED_STUDY
        if self.study.federation.secure_sum is None and task.wire != self.study.federation.wire:
            return Status.REFUSED_STUDY
        if task.adapter.shape != (self.dimension,) or not np.isfinite(task.adapter).all():
            return Status.REFUSED_STUDY
        if not self.admits(task):
            return Status.REFUSED_ADAPTER
        if self.declared_size < self.study.federation.smallest_declared_size:
            return Status.REFUSED_SIZE
        try:
            self._show_exact()
        except ExactnessError as error:
            log.error("Round %d refused: %s %s", task.round, error, error.hint or "")
            return Status.REFUSED_EXACTNESS
        except Exception:
            # no record was near: whatever stopped the probe is public, and what is not shown is not trained
            log.exception("Round %d refused: exactness was not shown.", task.round)
            return Status.REFUSED_EXACTNESS
        return None

    def admits(self, task: TrainTask) -> bool:
        """Return true if honest rounds before this one may have led to the task's adapter."""
        return self._bound.admits(task.round, task.adapter)

    def evaluation_refusal(self, task: EvaluationTask) -> Status | None:
        """Return a public reason not to evaluate an adapter on held-out records; None if there is none."""
        study = self.study
        if task.study_sha256 != self._study_sha256 or task.adapter.shape != (self.dimension,):
            return Status.REFUSED_STUDY
        if not np.isfinite(task.adapter).all():
            return Status.REFUSED_STUDY
        if task.number not in study.evaluated_after:
            return Status.REFUSED_EVALUATION
        if not self._bound.admits(task.number + 1, task.adapter):
            return Status.REFUSED_ADAPTER
        if self.declared_size < study.federation.smallest_declared_size:
            return Status.REFUSED_SIZE
        try:
            show_stateless(self.model)
        except Exception:
            log.exception("Evaluation %d refused: the model may keep something of the records.", task.number)
            return Status.REFUSED_EXACTNESS
        return None

    def trainer(self) -> PrivateTrainer:
        """Return the trainer on the records, built at first use after the gradient probe, and kept."""
        if self._trainer is None:
            self._show_exact()
            records = self._records() if callable(self._records) else self._records
            activations = activations_for(self.model, records, self._device, self.study.performance, self._cache)
            self._trainer = self._trainer_on(activations)
        return self._trainer

    def _show_exact(self) -> None:
        if self.dimension > MOST_NUMBERS:
            raise ExactnessError(f"Expected at most {MOST_NUMBERS} numbers to be trained, got {self.dimension}.")
        if self._verdict is None:
            show_stateless(self.model)  # first: what the probe finds holds for a model that has seen nothing
            records = self.model.kind.synthetic(self.model.config, LENGTHS, variant=0)
            if self.study.privacy.unit != RECORD:
                records = with_units(records, np.arange(len(records)))
            storage = self.study.performance.activation_storage
            trainer = self._trainer_on(FrozenActivations(self.model, records, self._device, storage=storage))
            hostile = worst_adapter(self.study, self.model.layout, self.model.start)
            if self.study.performance.fit_memory:
                self._tokens = trainer.micro_batch_tokens = fitting_tokens(trainer)
            self._verdict = ensure_exact(trainer, cache=self._cache, verdicts=self._verdicts, hostile=hostile)
            if self.study.performance.fit_memory:
                trainer.one_by_one = self._verdict.one_by_one
                self._thrifts = thrifts(trainer, cache=self._cache, hostile=hostile)

    def _trainer_on(self, activations: FrozenActivations) -> PrivateTrainer:
        training = self.study.training
        trainer = PrivateTrainer(
            self.model,
            activations,
            self._schedule,
            divisor_size=self.study.federation.divisor_size(self.declared_size),
            learning_rates=LearningRates(training.learning_rate, training.adapter_learning_rate),
            micro_batch_tokens=self._tokens,
            precision=self.study.performance.precision,
            one_by_one=self._verdict is not None and self._verdict.one_by_one,
            checkpointing=self.study.performance.activation_checkpointing,
        )
        trainer.thrifts = self._thrifts
        return trainer

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _trained(self, trainer: PrivateTrainer, task: TrainTask, release: SubsampledGaussian) -> TrainReply:
        started, randomness = time.monotonic(), self._randomness(task.round)
        update = self._update(task, release, randomness)
        self._note(task, trainer, started)
        return self._encoded(task, update, randomness)

    def _update(self, task: TrainTask, release: SubsampledGaussian, randomness: Randomness) -> Vector:
        update = self.trainer().train_round(
            task.adapter,
            factors=round_factors(self.study, task.round),
            randomness=randomness,
            release=release,
            on_step=self._on_step,
            measures=self.study.measures(task.round),
        )
        if not update.any():  # as noise moves every number that is trained; this looks at what is released alone
            raise ExactnessError("Expected noise to move what is trained, nothing moved.")
        return update

    def _note(self, task: TrainTask, trainer: PrivateTrainer, started: float) -> None:
        self.last = Trained(task.round, time.monotonic() - started, trainer.clip_fraction, len(trainer.raised))

    def _encoded(self, task: TrainTask, update: Vector, randomness: Randomness) -> TrainReply:
        """Round the noised update to what the study's encoding has."""
        encoding = encoding_for(
            self.study, self.model.layout, declared_size=self.declared_size, round_number=task.round
        )
        if encoding.wire != "float32":
            update = rounded(update, encoding, randomness.step().uniforms(len(update)))
        return replace(self.reply(task, Status.TRAINED), update=update, encoding=encoding)

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        """Return a code, in an answer of this study's one length."""
        return TrainReply(
            task.study_sha256,
            task.study_run,
            task.round,
            task.adapter_sha256,
            status,
            np.zeros(self.dimension, np.float32),
            encoding=self._of_zeros,
        )


def show_stateless(model: AdaptedModel) -> None:
    """Show once, on synthetic records, that a model which has seen nothing yet keeps nothing of what it sees.

    Raises:
        ExactnessError: it does.
    """
    if model not in REMEMBERED:
        REMEMBERED[model] = "Expected a model that has seen nothing yet, got one whose first records were broken off."
        REMEMBERED[model] = _kept_by(model)
    if REMEMBERED[model]:  # for good: what a first record changed does not change again
        raise ExactnessError(REMEMBERED[model])


def _kept_by(model: AdaptedModel) -> str:
    lengths = [max(longest_declared(model.kind), *LENGTHS), *LENGTHS, 1]
    records, device = model.kind.synthetic(model.config, lengths, variant=0), next(model.parameters()).device

    def answer(index: int) -> Tensor:
        with torch.no_grad(), plain_linear_layers(model):
            batch = collate(records, [index], model.kind.fills, device)
            states = [model.frozen_states(batch)] if model.has_frozen_layers else []
            return torch.cat([each.double().flatten() for each in (*states, model.losses(batch))])

    try:
        refuse_what_remembers(model.parts, answer, range(len(records)))
    except ExactnessError as error:
        return f"{error} {error.hint or ''}".strip()
    return ""


def device_for(name: str) -> torch.device:
    """Return a device by its name; `auto` takes a GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FedVaultError(f"Expected a CUDA device, got performance.device={name!r} on a machine without one.")
    return torch.device(name)
