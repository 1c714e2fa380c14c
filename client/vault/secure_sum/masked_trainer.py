"""Rounds of a study with a secure sum: what was trained leaves behind a mask, or nothing does."""

import logging
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client.vault.secure_sum.hiding import hidden, nothing_hidden
from client.vault.secure_sum.sum_files import SumFiles
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.secure_sum.context import Purpose
from shared.study.declaration import Study

log = logging.getLogger(__name__)
TRAINING: Purpose = "training"
NO_UPDATE = np.zeros(0, np.float32)


class Summing(Protocol):
    """Whatever trains a round and gives what it adds to the sum."""

    @property
    def study(self) -> Study:
        """As agreed."""
        ...

    @property
    def release(self) -> SubsampledGaussian:
        """One round's, as the study plans it."""
        ...

    @property
    def declared_size(self) -> int:
        """Public size of the dataset."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers of one summand."""
        ...

    def refusal(self, task: TrainTask) -> Status | None:
        """Return a public reason not to train; None if there is none."""
        ...

    def summand(self, task: TrainTask, release: SubsampledGaussian) -> NDArray[np.int64] | None:
        """Return what this node adds, noise included; None if the round failed."""
        ...

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        """Return a code."""
        ...


class MaskedTrainer:
    """Trains like the trainer that it is given, and hides what comes of it.

    Guarantee: a summand leaves behind a mask of its own round, or not at all: what fails is answered with zeros.
    Guarantee: what failed or was lost has the length of what is added to the sum.

    Args:
        trainer: knows the study and the records.
        files: this node's keys and rosters; the task's roster was admitted.
    """

    def __init__(self, trainer: Summing, files: SumFiles) -> None:
        self._trainer, self._files = trainer, files
        self.study, self.release, self.declared_size = trainer.study, trainer.release, trainer.declared_size
        self.refusal = trainer.refusal

    def attempt(self, task: TrainTask, release: SubsampledGaussian) -> TrainReply:
        """Train on the records, for a task that was not refused: masked, or failed whatever the cause."""
        summand = self._trainer.summand(task, release)
        if summand is None:
            return self.reply(task, Status.FAILED)
        try:
            masked = hidden(
                self._files,
                self.study,
                summand,
                run=task.study_run,
                number=task.round,
                adapter_sha256=task.adapter_sha256,
                purpose=TRAINING,
            )
        except Exception:
            # one code stands for whatever goes wrong once a round is paid for
            log.exception("Round %d failed: what it adds to the sum could not be masked and kept.", task.round)
            return self.reply(task, Status.FAILED)
        return replace(self._trainer.reply(task, Status.TRAINED), update=NO_UPDATE, masked=masked)

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        """Return a code, in an answer as long as what is added to the sum."""
        zeros = nothing_hidden(self._files, task.study_run, task.roster, self._trainer.dimension)
        return replace(self._trainer.reply(task, status), update=NO_UPDATE, masked=zeros)
