"""One evaluation that the ledger pays for: decide, reserve, count, put noise on it, make durable, release.

| the question | the answer |
|---|---|
| a run that nobody approved, or approved for another study or dataset | `refused_policy` |
| a number that the run does not have, or another adapter than it was evaluated with | `refused_evaluation` |
| an evaluation that was answered before | the very same bytes, at no cost; `lost`, where they are not kept any more |
| the same, now that the policy says no to evaluations | `refused_policy` |
| one that was reserved, and whose bytes a crash took | `lost`, for ever |
| of a run that is over, a policy that says no, or records whose operator has to look first | `refused_policy` |
| an adapter that no honest rounds lead to, a small site, closed hours | a public code, before anything is reserved |
| one that the records' account has no room for any more | `refused_budget` |
| a ledger that cannot be trusted or written | `refused_ledger` |
| a secure sum whose roster this node does not take, or whose keys it has not any more | a public code |
| noise other than the ledger has | `refused_study` |
| all else | reserved, counted with noise, made durable, sent |
| whatever goes wrong after the reservation, its run being ended too | `failed`, and it stays paid for |
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from client.vault.ledger.account import check_room
from client.vault.ledger.approval import commit_evaluation, released_evaluation
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import NOTHING_DECLARED, ApprovedRun, Evaluations, Limit
from client.vault.ledger.state import LedgerState
from client.vault.records.held_out import GROUP
from client.vault.secure_sum.masked_counts import MaskedCounts, OwnCounts
from client.vault.training.evaluator import exact_histogram, noisy_histogram
from client.vault.training.randomness import Randomness
from client.vault.training.round_trainer import RoundTrainer
from client.vault_api.messages import read_evaluation, write_evaluation
from shared.errors import BudgetError, ExactnessError, LedgerError, PolicyRefusal, SettingsError
from shared.privacy.releases import CountsRelease
from shared.private_evaluation.cells import Cells
from shared.private_evaluation.noise import evaluation_release
from shared.protocol.messages import EvaluationReply, EvaluationTask, LedgerPosition, Status, without_histogram
from shared.records.ragged import Records

Reserved = tuple[LedgerPosition, CountsRelease]
AS_THEY_ARE, NO = OwnCounts(), Status.REFUSED_POLICY
LOOK = "Look at the log, mend the cause, then: fedvault-node resume RUN"
log = logging.getLogger(__name__)


class ChargedEvaluation:
    """One dataset under one approved study run with evaluations.

    Guarantee: no held-out record is read for an evaluation before its cost is on disk.
    Guarantee: an evaluation says nothing of the held-out records but its noisy counts, and is answered once.
    Guarantee: after the reservation of an evaluation every trouble is answered with one code.

    Args:
        trainer: has the study and its model.
        held_out: opens the run's held-out records.
        open_ledger: opens this node's ledger, verified; it is let go of while the model predicts.
        dataset: the records' name in the ledger.
        randomness: source of noise.
        declared: the limits of node.toml today by dataset, which may be stricter than the ledger's.
        refusal: a public reason of the node's policy not to evaluate now; None if there is none.
        allowed: whether that policy has evaluations at all.
        on_record: called before each record; an exception from it ends the evaluation.
        leaves: how the counts leave: as they are, or behind the mask of a secure sum whose roster it admits.
    """

    def __init__(
        self,
        trainer: RoundTrainer,
        held_out: Callable[[], Records],
        open_ledger: Callable[[], AbstractContextManager[Ledger]],
        *,
        dataset: str,
        randomness: Randomness,
        declared: Mapping[str, Limit] = NOTHING_DECLARED,
        refusal: Callable[[LedgerState], Status | None] = lambda _state: None,
        allowed: Callable[[LedgerState], bool] = lambda _state: True,
        on_record: Callable[[], None] = lambda: None,
        leaves: OwnCounts = AS_THEY_ARE,
    ) -> None:
        self._trainer, self._held_out, self._open_ledger = trainer, held_out, open_ledger
        self._dataset, self._randomness, self._declared = dataset, randomness, declared
        self._refusal, self._allowed, self._on_record, self._leaves = refusal, allowed, on_record, leaves

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Answer one question; never raises for what it or the data holds."""
        try:
            with self._open_ledger() as ledger:
                decision = self._decide(ledger, task)
        except (LedgerError, OSError) as error:
            return _refused(task, Status.REFUSED_LEDGER, error)
        except BudgetError as error:
            return _refused(task, Status.REFUSED_BUDGET, error)
        except (PolicyRefusal, SettingsError) as error:
            return _refused(task, Status.REFUSED_POLICY, error)
        return decision if isinstance(decision, EvaluationReply) else self._evaluate_reserved(task, *decision)

    def _decide(self, ledger: Ledger, task: EvaluationTask) -> EvaluationReply | Reserved:
        """Return an answer that needs no record, or the evaluation's reservation."""
        ledger.check_server_copy(task.server_copy)
        run, number = ledger.state.runs.get(task.study_run), task.number
        if run is None or (run.study_sha256, run.dataset) != (task.study_sha256, self._dataset):
            return without_histogram(task, Status.REFUSED_POLICY)
        evaluations = run.evaluations
        if evaluations is None or number not in evaluations.numbers:
            return without_histogram(task, Status.REFUSED_EVALUATION)
        if evaluations.adapters.get(number, task.adapter_sha256) != task.adapter_sha256:
            return without_histogram(task, Status.REFUSED_EVALUATION)
        if (released := released_evaluation(ledger, task.study_run, number)) is not None:
            # a policy that says no keeps back what is not sent yet, too
            return read_evaluation(released) if self._allowed(ledger.state) else without_histogram(task, NO)
        if number in evaluations.attempts:
            return self._leaves.without(task, Status.LOST, cells=Cells.of(self._trainer.study).length)
        refusal = self._reason_not_to(ledger.state, task, run, evaluations) or self._leaves.admit(ledger, task)
        if refusal is not None:
            return without_histogram(task, refusal)
        check_room(ledger.state, task.study_run, declared=self._declared, evaluation=True)
        _ = ledger.position_with_mac  # a missing key is found before anything is paid
        ledger.enter(_row("evaluation", task) | {"adapter_sha256": task.adapter_sha256})
        # as it is now: the roster says who shares the noise
        charged = ledger.state.run(task.study_run).evaluations
        return ledger.position_with_mac, (charged or evaluations).each

    def _reason_not_to(
        self, state: LedgerState, task: EvaluationTask, run: ApprovedRun, evaluations: Evaluations
    ) -> Status | None:
        """Return a public reason not to evaluate; None if there is none. No record is looked at."""
        troubles, release = state.troubles(self._dataset), evaluation_release(self._trainer.study)
        for name in troubles:
            rounds = state.runs[name].waiting_in_words
            log.error("Evaluation %d refused: rounds %s of %s failed or were lost. %s", task.number, rounds, name, LOOK)
        if troubles or run.closed or state.is_over(task.study_run) or not self._allowed(state):
            return Status.REFUSED_POLICY
        if _noise_of(release) != _noise_of(evaluations.each):
            log.error("Evaluation %d refused: %s was entered, %s is computed.", task.number, evaluations.each, release)
            return Status.REFUSED_STUDY
        return self._refusal(state) or self._trainer.evaluation_refusal(task)

    def _evaluate_reserved(
        self, task: EvaluationTask, position: LedgerPosition, charged: CountsRelease
    ) -> EvaluationReply:
        """Evaluate what is paid for, and answer only what is durable."""
        cells = Cells.of(self._trainer.study).length
        # made first: neither a record nor a file that broke meanwhile decides its length
        reply = failed = replace(self._leaves.without(task, Status.FAILED, cells=cells), ledger=position)
        try:
            reply = replace(self._counted(task, charged), ledger=position)
        except Exception:
            # to hang up in place of an answer would say something too
            log.exception("Evaluation %d failed; the server is told only that it failed.", task.number)
            self._trainer.broken = True
        try:
            with self._open_ledger() as ledger:
                if ledger.state.is_over(task.study_run):  # ended meanwhile: nothing made of its records leaves any more
                    reply = failed
                elif reply.status is Status.FAILED:
                    ledger.enter(_row("evaluation-failed", task))
                commit_evaluation(ledger, task.study_run, task.number, write_evaluation(reply))
        except Exception:
            # what is not durable must not leave: it could not be sent again
            log.exception("Evaluation %d failed: its counts could not be made durable.", task.number)
            return failed
        return reply

    def _counted(self, task: EvaluationTask, charged: CountsRelease) -> EvaluationReply:
        if self._trainer.study.federation.secure_sum is not None and not isinstance(self._leaves, MaskedCounts):
            raise ExactnessError("Expected counts of a secure sum to leave behind a mask, got a bare question.")
        trainer, records = self._trainer, self._held_out()
        if GROUP not in records.fields:
            raise ExactnessError("Expected held-out records that were kept for an evaluation, got others.")
        groups = records[GROUP].values
        trainer.model.load(task.adapter)
        exact = exact_histogram(trainer.study, trainer.model, records, groups, on_record=self._on_record)
        return self._leaves.reply(task, noisy_histogram(exact, charged, self._randomness.step()))


def _row(kind: str, task: EvaluationTask) -> dict[str, object]:
    return {"kind": kind, "run": task.study_run, "number": task.number}


def _refused(task: EvaluationTask, status: Status, error: Exception) -> EvaluationReply:
    log.error("Evaluation %d refused: %s", task.number, error)
    return without_histogram(task, status)


def _noise_of(release: CountsRelease) -> tuple[type[CountsRelease], float, int, float]:
    """Return what decides what a release costs, but for who shares its noise: that is the roster's."""
    return type(release), release.noise_multiplier, release.count, release.sensitivity
