"""Answer an evaluation `failed` for a vault that does not, as long as the vault's own answer would be.

How long that is follows from the study, which comes with its offer, and from the roster of a secure sum, which comes
with the question. A link that has not seen the offer since it started does not know, and sends no counts.
"""

import json
from dataclasses import replace

from shared.errors import SettingsError
from shared.private_evaluation.cells import Cells
from shared.protocol.messages import EvaluationReply, EvaluationTask, Status, StudyOffer, without_histogram
from shared.secure_sum.messages import masked_bytes
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Roster
from shared.study.declaration import recorded

MOST_RUNS = 1000


class ReplyShapes:
    """Remembers how many cells the evaluations of runs have."""

    def __init__(self) -> None:
        self._cells = dict[str, int]()

    def note(self, offer: StudyOffer) -> None:
        """Take note of a study; what cannot be read is the vault's to refuse."""
        try:
            study = recorded(json.loads(offer.study_json), where="an offer")
        except (ValueError, RecursionError, SettingsError):
            return
        if study.evaluation is not None:
            self._cells[offer.study_run] = Cells.of(study).length
        while len(self._cells) > MOST_RUNS:
            del self._cells[next(iter(self._cells))]

    def failed(self, task: EvaluationTask, *, name: str) -> EvaluationReply:
        """Return `failed` with zeros in place of counts, or of what hides them.

        Guarantee: a link's `failed` for a vault that is too slow or away is as long as the vault's own.

        Args:
            task: the question.
            name: this node's, in rosters.
        """
        cells = self._cells.get(task.study_run, 0)
        if not task.roster:
            return without_histogram(task, Status.FAILED, cells=cells)
        try:
            nodes = len(Roster.from_bytes(task.roster).entries)
        except SecureSumError:
            nodes = 0
        return replace(without_histogram(task, Status.FAILED), masked=bytes(masked_bytes(name, nodes, cells)))
