"""Rounds of a study with a secure sum: what was trained leaves behind a mask, or nothing does."""

import logging
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client.vault.secure_sum.sum_files import SumFiles
from shared.errors import FedVaultError
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.secure_sum.context import Purpose, RoundContext
from shared.secure_sum.messages import masked_bytes
from shared.secure_sum.node import MaskedRow, Member, mask_vector
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Roster
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
    Guarantee: this node's share of its own mask is on disk before the masked vector is released.
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
            row = self._masked(task, summand)
            # the message is kept by the outbox, with a digest in the ledger
            self._files.keep_part(replace(row, message=b""))
        except Exception:
            # one code stands for whatever goes wrong once a round is paid for
            log.exception("Round %d failed: what it adds to the sum could not be masked and kept.", task.round)
            return self.reply(task, Status.FAILED)
        return replace(self._trainer.reply(task, Status.TRAINED), update=NO_UPDATE, masked=row.message)

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        """Return a code, in an answer as long as what is added to the sum."""
        identity, roster = self._files.identity(task.study_run), self._files.roster(task.study_run) or _roster(task)
        name, nodes = identity.entry.name if identity else "", len(roster.entries) if roster else 0
        zeros = bytes(masked_bytes(name, nodes, self._trainer.dimension))
        return replace(self._trainer.reply(task, status), update=NO_UPDATE, masked=zeros)

    def _masked(self, task: TrainTask, summand: NDArray[np.int64]) -> MaskedRow:
        run, study_sha256 = task.study_run, self.study.sha256
        identity, roster = self._files.identity(run), self._files.roster(run)
        if identity is None or roster is None:
            raise FedVaultError(f"Expected keys and roster of {run!r}, they are gone.")
        context = RoundContext(run, study_sha256, task.round, task.adapter_sha256, roster.sha256, TRAINING)
        recorded = self._files.part(run, task.round, TRAINING)
        return mask_vector(Member(identity.entry.name, identity.keys, roster), context, summand, recorded)


def _roster(task: TrainTask) -> Roster | None:
    try:
        return Roster.from_bytes(task.roster)
    except SecureSumError:
        return None
