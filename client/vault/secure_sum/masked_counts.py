"""Add the noisy counts of an evaluation to a secure sum: they leave behind a mask, or zeros do."""

from collections.abc import Callable
from dataclasses import replace

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import EVALUATION
from client.vault.secure_sum.hiding import hidden, nothing_hidden
from client.vault.secure_sum.sum_files import SumFiles
from shared.protocol.messages import Counts, EvaluationReply, EvaluationTask, Status, without_histogram
from shared.study.declaration import Study

Admit = Callable[[Ledger, EvaluationTask], Status | None]
"""The last word before a reservation, about a question's roster; may enter a row of its own."""


class OwnCounts:
    """Sends the counts as they are: of a study without a secure sum.

    Args:
        admit: as of a round.
    """

    def __init__(self, admit: Admit = lambda _ledger, _task: None) -> None:
        self.admit = admit

    def reply(self, task: EvaluationTask, counts: Counts) -> EvaluationReply:
        """Return the answer that holds these noisy counts."""
        return replace(without_histogram(task, Status.EVALUATED), histogram=counts)

    def without(self, task: EvaluationTask, status: Status, *, cells: int) -> EvaluationReply:
        """Return a code in an answer as long as one with counts."""
        return without_histogram(task, status, cells=cells)


class MaskedCounts(OwnCounts):
    """Hides the counts of one run.

    Guarantee: counts of a study with a secure sum leave behind a mask of their own evaluation, or not at all.
    Guarantee: an evaluation that failed or was lost is answered with as many bytes as one that was not.

    Args:
        study: of the run, with a secure sum.
        files: this node's keys and rosters.
        admit: takes or refuses the roster of a question.
    """

    def __init__(self, study: Study, files: SumFiles, admit: Admit) -> None:
        super().__init__(admit)
        self._study, self._files = study, files

    def reply(self, task: EvaluationTask, counts: Counts) -> EvaluationReply:
        """Return the answer that adds these noisy counts to the sum."""
        masked = hidden(
            self._files,
            self._study,
            counts,
            run=task.study_run,
            number=task.number,
            adapter_sha256=task.adapter_sha256,
            purpose=EVALUATION,
        )
        return replace(without_histogram(task, Status.EVALUATED), masked=masked)

    def without(self, task: EvaluationTask, status: Status, *, cells: int) -> EvaluationReply:
        """Return a code, and zeros as long as what is added to the sum."""
        zeros = nothing_hidden(self._files, task.study_run, task.roster, cells)
        return replace(without_histogram(task, status), masked=zeros)
