"""One round that the ledger pays for: decide, reserve, train, make durable, release.

| the question | the answer |
|---|---|
| a run that nobody approved, or approved for another study or dataset | `refused_policy` |
| a round that was answered before | the very same bytes, at no cost; `lost`, where they are not kept any more |
| a round that was reserved, and whose bytes a crash took | `lost`, for ever |
| the same, where a crash left the bytes without their row and the run was ended before it was asked again | `lost` |
| anything the study or model forbids | its public code, before anything is reserved |
| a round that the records' account has no room for any more | `refused_budget` |
| a ledger that cannot be trusted or written | `refused_ledger` |
| records with one failed or two lost rounds that their operator has not looked at | `refused_policy` |
| noise, a declared size or a unit other than the ledger has | `refused_study` |
| a secure sum whose roster this node does not take, or whose keys it has not any more | a public code |
| all else | reserved, trained, made durable, sent |
| whatever goes wrong after the reservation, its run being ended too | `failed`, and the round stays paid for |

`failed` and `lost` bear no noise: records answer them once and twice at most, in all runs, until a person has looked.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import cast

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import NOTHING_DECLARED, UNDECLARED, ApprovedRun, Limit
from client.vault.ledger.state import LedgerState
from client.vault.secure_sum.masked_trainer import MaskedTrainer
from client.vault.training.round_trainer import RoundTrainer
from client.vault_api.messages import read_reply, write_reply
from shared.errors import BudgetError, LedgerError, PolicyRefusal, SettingsError
from shared.privacy.releases import Release, SubsampledGaussian
from shared.protocol.messages import LedgerPosition, Status, TrainReply, TrainTask

Reserved = tuple[LedgerPosition, SubsampledGaussian]
"""Where the ledger stands with a round reserved, and the release that it charged."""
LOOK = "Look at the log, mend the cause, then: fedvault-node resume RUN"
log = logging.getLogger(__name__)


class ChargedRound:
    """One dataset under one approved study run.

    Guarantee: nothing that depends on the records leaves before its cost is on disk.
    Guarantee: no record is opened for a round, and none is looked at, before the round's cost is on disk.
    Guarantee: after the reservation every trouble is answered with one code.
    Guarantee: a question that is asked again costs nothing, and gets the same bytes for as long as they are kept.
    Guarantee: the trainer trains by the very release that the reservation charged, or not at all.
    Guarantee: after one failed or two lost rounds the records' account trains nothing until its operator has looked.

    Args:
        trainer: knows the study and the records.
        open_ledger: opens this node's ledger, verified; it is let go of while training, so that an operator can look.
        dataset: the records' name in the ledger.
        declared: the limits of node.toml today by dataset, which may be stricter than the ledger's.
        refusal: a public reason of the node's policy not to train now; None if there is none.
        admit: the last word before the reservation, about a task's roster; may enter a row of its own.
    """

    def __init__(
        self,
        trainer: RoundTrainer | MaskedTrainer,
        open_ledger: Callable[[], AbstractContextManager[Ledger]],
        *,
        dataset: str,
        declared: Mapping[str, Limit] = NOTHING_DECLARED,
        refusal: Callable[[LedgerState], Status | None] = lambda _state: None,
        admit: Callable[[Ledger, TrainTask], Status | None] = lambda _ledger, _task: None,
    ) -> None:
        self._trainer, self._open_ledger = trainer, open_ledger
        self._dataset, self._declared, self._refusal = dataset, declared, refusal
        self._admit = admit

    def train(self, task: TrainTask) -> TrainReply:
        """Answer one task; never raises for what it or the data holds."""
        # public alone, but a probe may take minutes: the ledger is not held meanwhile
        refusal = self._trainer.refusal(task)
        try:
            with self._open_ledger() as ledger:
                decision = self._decide(ledger, task, refusal)
        except (LedgerError, OSError) as error:
            return self._refused(task, Status.REFUSED_LEDGER, error)
        except BudgetError as error:
            return self._refused(task, Status.REFUSED_BUDGET, error)
        except (PolicyRefusal, SettingsError) as error:
            return self._refused(task, Status.REFUSED_POLICY, error)
        return decision if isinstance(decision, TrainReply) else self._train_reserved(task, *decision)

    def _train_reserved(self, task: TrainTask, position: LedgerPosition, charged: SubsampledGaussian) -> TrainReply:
        """Train a round that is paid for, and answer only what is durable."""
        # made first: neither a record nor a file that broke meanwhile decides its length
        reply = failed = replace(self._trainer.reply(task, Status.FAILED), ledger=position)
        try:
            reply = replace(self._trainer.attempt(task, charged), ledger=position)
        except Exception:
            # to hang up in place of an answer would say something too
            log.exception("Round %d failed; the server is told only that it failed.", task.round)
        try:
            with self._open_ledger() as ledger:
                if ledger.state.is_over(task.study_run):  # ended meanwhile: nothing made of its records leaves any more
                    reply = failed
                elif reply.status is Status.FAILED:
                    ledger.fail(task.study_run, task.round)
                ledger.commit(task.study_run, task.round, write_reply(reply))
        except Exception:
            # what is not durable must not leave: it could not be sent again
            log.exception("Round %d failed: its update could not be made durable.", task.round)
            return failed
        return reply

    def _decide(self, ledger: Ledger, task: TrainTask, refusal: Status | None) -> TrainReply | Reserved:
        """Return an answer that needs no training, or the round's reservation."""
        ledger.check_server_copy(task.server_copy)
        run = ledger.state.runs.get(task.study_run)
        if run is None or (run.study_sha256, run.dataset) != (task.study_sha256, self._dataset):
            return self._trainer.reply(task, Status.REFUSED_POLICY)
        released, troubles = ledger.answer(task.study_run, task.round), ledger.state.troubles(self._dataset)
        if released is not None:
            return read_reply(released)
        if task.round in run.attempts:
            refusal = Status.LOST
        elif troubles:
            for name in troubles:
                rounds = ledger.state.runs[name].waiting_in_words
                log.error("Round %d refused: rounds %s of %s failed or were lost. %s", task.round, rounds, name, LOOK)
            refusal = Status.REFUSED_POLICY
        else:
            if (difference := self._difference(ledger.state, run)) is not None:
                log.error("Round %d refused: %s.", task.round, difference)
            refusal = self._refusal(ledger.state) or refusal or (Status.REFUSED_STUDY if difference else None)
            refusal = refusal or self._admit(ledger, task)
        if refusal is not None:
            if refusal not in (Status.LOST, Status.REFUSED_POLICY):
                # no room is for good, closed hours and the like may pass
                ledger.check_room(task.study_run, declared=self._declared)
            return self._trainer.reply(task, refusal)
        _ = ledger.position_with_mac  # a missing key is found before anything is paid
        charged = ledger.reserve(task.study_run, task.round, declared=self._declared)
        return ledger.position_with_mac, cast(SubsampledGaussian, charged)

    def _difference(self, state: LedgerState, run: ApprovedRun) -> str | None:
        """Return which number the ledger and the trainer both have, and have differently; None if they agree."""
        trainer, terms = self._trainer, state.terms.get(self._dataset, UNDECLARED)
        sides: dict[str, tuple[object, object]] = {"noise": (_noise_of(run.per_round), _noise_of(trainer.release))}
        if terms.declared_size:  # rows of the first version declare none
            sides["declared size"] = terms.declared_size, trainer.declared_size
            sides["unit"] = terms.unit, trainer.study.privacy.unit
        differ = (
            f"{name} {ours} was entered, {theirs} would be trained by"
            for name, (ours, theirs) in sides.items()
            if ours != theirs
        )
        return next(differ, None)

    def _refused(self, task: TrainTask, status: Status, error: Exception) -> TrainReply:
        log.error("Round %d refused: %s", task.round, error)
        return self._trainer.reply(task, status)


def _noise_of(release: Release) -> tuple[float, float, int]:
    """Return the numbers that decide what a release costs."""
    return release.noise_multiplier, release.sampling_rate, release.count
