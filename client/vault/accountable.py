"""A vault that answers to its ledger: decide, reserve, train, make durable, release.

| the question | the answer |
|---|---|
| a run that nobody approved, or approved for another study or dataset | `refused_policy` |
| a round that was answered before | the very same bytes, at no cost |
| a round that was reserved, and whose bytes a crash took | `lost`, for ever |
| anything the study or model forbids | its public code, before anything is reserved |
| a round that the records' account has no room for any more | `refused_budget` |
| a ledger that cannot be trusted or written | `refused_ledger` |
| all else | reserved, trained, made durable, sent; a failure is charged and answered as one code |
"""

import logging

from client.vault.ledger import Ledger
from client.vault.vault import Vault
from client.vault.wire import read_reply, write_reply
from shared.errors import BudgetError, LedgerError, PolicyRefusal
from shared.privacy.planning import plan
from shared.protocol import Status, TrainReply, TrainTask
from shared.study import Study

log = logging.getLogger(__name__)


class AccountableVault:
    """One dataset under one approved study run.

    Guarantee: nothing that depends on the records leaves before its cost is on disk.
    Guarantee: a question that is asked again gets the same bytes, and costs nothing.

    Args:
        vault: trains; knows the study and the records.
        ledger: of this node.
        dataset: the records' name in the ledger.
    """

    def __init__(self, vault: Vault, ledger: Ledger, *, dataset: str) -> None:
        self._vault, self._ledger, self._dataset = vault, ledger, dataset

    def train(self, task: TrainTask, *, echo: tuple[int, str] | None = None) -> TrainReply:
        """Answer one task; never raises for what it or the data holds.

        Args:
            task: what is asked.
            echo: height and head of this node's ledger as the server last saw them.
        """
        try:
            if echo is not None:
                self._ledger.check_echo(*echo)
            if not self._approved(task):
                return self._vault.reply(task, Status.REFUSED_POLICY)
            kept = self._ledger.answer(task.study_run, task.round)
            if kept is not None:
                return read_reply(kept)
            lost = self._ledger.lost(task.study_run, task.round)
            refusal = Status.LOST if lost else self._vault.refusal(task)
            if refusal is not None:
                return self._vault.reply(task, refusal)
            self._ledger.reserve(task.study_run, task.round)
        except (LedgerError, OSError) as error:
            return self._without_ledger(task, error)
        except (BudgetError, PolicyRefusal) as error:
            log.error("Round %d refused: %s", task.round, error)
            over = isinstance(error, BudgetError)
            return self._vault.reply(task, Status.REFUSED_BUDGET if over else Status.REFUSED_POLICY)
        reply = self._vault.train(task)
        try:
            self._ledger.commit(task.study_run, task.round, write_reply(reply))
        except (LedgerError, OSError) as error:
            return self._without_ledger(task, error)  # what is not durable must not leave: it could not be sent again
        return reply

    def _approved(self, task: TrainTask) -> bool:
        run = self._ledger.books.runs.get(task.study_run)
        return run is not None and (run.study_sha256, run.dataset) == (task.study_sha256, self._dataset)

    def _without_ledger(self, task: TrainTask, error: Exception) -> TrainReply:
        log.error("Round %d refused: %s", task.round, error)
        return self._vault.reply(task, Status.REFUSED_LEDGER)


def approve(ledger: Ledger, study: Study, *, dataset: str, run: str) -> None:
    """Enter an operator's yes to one study run: its whole worst case is earmarked.

    Raises:
        BudgetError: it does not fit into what the dataset may spend.
        PolicyRefusal: the dataset is unknown or withdrawn, its delta is stricter, or the run was approved before.
    """
    if dataset not in ledger.books.limits:
        raise PolicyRefusal(f"Expected a registered dataset, got {dataset!r}.")
    limit = ledger.books.limit(dataset)
    if study.privacy.delta > limit.delta:
        raise PolicyRefusal(f"Expected privacy.delta of at most {limit.delta:g}, got {study.privacy.delta:g}.")
    per_round = plan(study.privacy, steps=study.total_steps).release(study.training.local_steps)
    rounds = study.federation.rounds
    ledger.approve(dataset, run, study_sha256=study.sha256, rounds=rounds, per_round=per_round)
