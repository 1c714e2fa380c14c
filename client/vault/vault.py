"""The vault answers one question: train this round, and give back what may leave.

It holds the records, the model and the study that was agreed to. Whatever it answers has the same length; whatever
goes wrong after training began becomes one code, and the cause stays in the local log.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from client.vault.exactness import ensure_exact
from client.vault.prefix import open_prefix
from client.vault.private_training import LearningRates, PrivateTrainer
from client.vault.randomness import Randomness
from shared.adapted_model import AdaptedModel
from shared.errors import ExactnessError, FedVaultError
from shared.privacy.planning import plan
from shared.protocol import Status, TrainReply, TrainTask
from shared.records import Records
from shared.schedule import learning_rate_factors
from shared.study import Study

log = logging.getLogger(__name__)


class Trains(Protocol):
    """Anything that answers a train task."""

    def train(self, task: TrainTask) -> TrainReply:
        """Answer; never raises for what the data or the task holds."""
        ...


@dataclass(frozen=True)
class Trained:
    """How a round went, for the node's operator alone."""

    round: int
    seconds: float
    """Wall time of its steps."""
    clip_fraction: float
    """Share of the gradients that were longer than the clipping norm."""


class Vault:
    """One dataset under one study.

    Guarantee: everything a reply says about the records went through the private trainer.
    Guarantee: every reply of a study has the same length, whether training succeeded or not.

    Args:
        study: as agreed; phase, steps, learning rates, sigma and C come from here, never from a task.
        model: the study's model on its device.
        records: to train on.
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
        records: Records,
        *,
        declared_size: int,
        randomness: Callable[[int], Randomness],
        cache: Path | None = None,
        verdicts: Path | None = None,
        on_step: Callable[[int], None] = lambda _step: None,
    ) -> None:
        self.study, self.model, self.declared_size = study, model, declared_size
        self._randomness, self._on_step = randomness, on_step
        self._cache = cache if study.performance.prefix_cache else None
        self._verdicts = verdicts
        self._records = records
        self._trainer: PrivateTrainer | None = None
        self.last: Trained | None = None

    def train(self, task: TrainTask) -> TrainReply:
        """Answer one task."""
        refusal = self.refusal(task)
        if refusal is not None:
            return self.reply(task, refusal)
        try:
            update = self._trained(self.trainer(), task)
        except Exception:
            # the cause may be data: one code stands for all of them
            log.exception("Round %d failed; the server is told only that it failed.", task.round)
            return self.reply(task, Status.FAILED)
        return self.reply(task, Status.TRAINED, update)

    def refusal(self, task: TrainTask) -> Status | None:
        """A public reason not to train, found before anything is spent; None if there is none."""
        if task.study_sha256 != self.study.sha256 or not 1 <= task.round <= self.study.federation.rounds:
            return Status.REFUSED_STUDY
        if task.adapter.shape != (self.model.layout.length,) or not np.isfinite(task.adapter).all():
            return Status.REFUSED_STUDY
        if self.declared_size < self.study.federation.smallest_declared_size:
            return Status.REFUSED_SIZE
        try:
            self.trainer()
        except ExactnessError as error:
            log.error("Round %d refused: %s", task.round, error)
            return Status.REFUSED_EXACTNESS
        except Exception:
            return None  # it may be the data's doing: training will meet it again, as a failure that is paid for
        return None

    def trainer(self) -> PrivateTrainer:
        """The trainer, probed for exactness, built at first use and kept warm."""
        if self._trainer is None:
            performance, training = self.study.performance, self.study.training
            device = next(self.model.parameters()).device
            prefix = open_prefix(
                self.model,
                self._records,
                device,
                folder=self._cache,
                limit_bytes=performance.prefix_cache_limit_bytes,
            )
            trainer = PrivateTrainer(
                self.model,
                prefix,
                plan(self.study.privacy, steps=self.study.total_steps),
                declared_size=self.declared_size,
                learning_rates=LearningRates(training.learning_rate, training.adapter_learning_rate),
                micro_batch_tokens=performance.micro_batch_tokens,
                precision=performance.precision,
            )
            ensure_exact(trainer, cache=self._cache, verdicts=self._verdicts)
            self._trainer = trainer
        return self._trainer

    def _trained(self, trainer: PrivateTrainer, task: TrainTask) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        training, federation = self.study.training, self.study.federation
        factors = learning_rate_factors(
            round_number=task.round, local_steps=training.local_steps, rounds=federation.rounds
        )
        started = time.monotonic()
        update = trainer.train_round(
            task.adapter, factors=factors, randomness=self._randomness(task.round), on_step=self._on_step
        )
        self.last = Trained(task.round, time.monotonic() - started, trainer.clip_fraction)
        return update

    def reply(
        self, task: TrainTask, status: Status, update: np.ndarray[tuple[int], np.dtype[np.float32]] | None = None
    ) -> TrainReply:
        """An answer of this study's one length."""
        released = np.zeros(self.model.layout.length, np.float32) if update is None else update
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, status, released)


def device_for(name: str) -> torch.device:
    """`auto` takes a GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FedVaultError(f"Expected a CUDA device, got performance.device={name!r} on a machine without one.")
    return torch.device(name)
