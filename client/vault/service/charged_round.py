"""A vault that answers to its ledger: decide, reserve, train, make durable, release.

| the question | the answer |
|---|---|
| a run that nobody approved, or approved for another study or dataset | `refused_policy` |
| a round that was answered before | the very same bytes, at no cost |
| a round that was reserved, and whose bytes a crash took | `lost`, for ever |
| anything the study or model forbids | its public code, before anything is reserved |
| a round that the records' account has no room for any more | `refused_budget` |
| a ledger that cannot be trusted or written | `refused_ledger` |
| all else | reserved, trained, made durable, sent |
| whatever goes wrong after the reservation | `failed`, and the round stays paid for |
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import LedgerState
from client.vault_api.messages import read_reply, write_reply
from shared.errors import BudgetError, LedgerError, PolicyRefusal, SettingsError
from shared.protocol.messages import LedgerPosition, Status, TrainReply, TrainTask

log = logging.getLogger(__name__)
OpenLedger = Callable[[], AbstractContextManager[Ledger]]


class RoundTraining(Protocol):
    """What trains, as far as the ledger is concerned; `Vault` is one."""

    def refusal(self, task: TrainTask) -> Status | None:
        """A public reason not to train; looks at no record."""
        ...

    def attempt(self, task: TrainTask) -> TrainReply:
        """Train; called once the round is paid for."""
        ...

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        """A code without an update."""
        ...


class ChargedRound:
    """One dataset under one approved study run.

    Guarantee: nothing that depends on the records leaves before its cost is on disk.
    Guarantee: no record is opened for a round, and none is looked at, before the round's cost is on disk.
    Guarantee: after the reservation every trouble is answered with one code.
    Guarantee: a question that is asked again gets the same bytes, and costs nothing.

    Args:
        vault: trains; knows the study and the records.
        open_ledger: opens this node's ledger, verified; it is let go of while training, so that an operator can look.
        dataset: the records' name in the ledger.
        policy_says: a public reason of the node's policy not to train now; None if there is none.
    """

    def __init__(
        self,
        vault: RoundTraining,
        open_ledger: OpenLedger,
        *,
        dataset: str,
        policy_says: Callable[[LedgerState], Status | None] = lambda _state: None,
    ) -> None:
        self._vault, self._open_ledger, self._dataset = vault, open_ledger, dataset
        self._policy_says = policy_says

    def train(self, task: TrainTask) -> TrainReply:
        """Answer one task; never raises for what it or the data holds."""
        # public alone, but a probe may take minutes: the ledger is not held meanwhile
        refusal = self._vault.refusal(task)
        try:
            with self._open_ledger() as ledger:
                decided = self._decided(ledger, task, refusal)
        except (LedgerError, OSError) as error:
            return self._refused(task, Status.REFUSED_LEDGER, error)
        except BudgetError as error:
            return self._refused(task, Status.REFUSED_BUDGET, error)
        except (PolicyRefusal, SettingsError) as error:
            return self._refused(task, Status.REFUSED_POLICY, error)
        return decided if isinstance(decided, TrainReply) else self._paid(task, decided)

    def _paid(self, task: TrainTask, position: LedgerPosition) -> TrainReply:
        reply = replace(self._vault.attempt(task), ledger=position)
        try:
            with self._open_ledger() as ledger:
                ledger.commit(task.study_run, task.round, write_reply(reply))
        except Exception:
            # what is not durable must not leave: it could not be sent again
            log.exception("Round %d failed: its update could not be made durable.", task.round)
            return replace(self._vault.reply(task, Status.FAILED), ledger=position)
        return reply

    def _decided(self, ledger: Ledger, task: TrainTask, refusal: Status | None) -> TrainReply | LedgerPosition:
        """An answer that needs no training, or where the ledger stands with the round reserved."""
        if task.server_copy.height:
            ledger.check_server_copy(task.server_copy.height, task.server_copy.head)
        run = ledger.state.runs.get(task.study_run)
        if run is None or (run.study_sha256, run.dataset) != (task.study_sha256, self._dataset):
            return self._vault.reply(task, Status.REFUSED_POLICY)
        kept = ledger.answer(task.study_run, task.round)
        if kept is not None:
            return read_reply(kept)
        lost = ledger.lost(task.study_run, task.round)
        refusal = Status.LOST if lost else self._policy_says(ledger.state) or refusal
        if refusal is not None:
            return self._vault.reply(task, refusal)
        ledger.reserve(task.study_run, task.round)
        return LedgerPosition(ledger.height, ledger.head)

    def _refused(self, task: TrainTask, status: Status, error: Exception) -> TrainReply:
        log.error("Round %d refused: %s", task.round, error)
        return self._vault.reply(task, status)
