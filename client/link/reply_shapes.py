"""Answer `failed` for a vault that does not, as long as the vault's own answer would be.

How long that is follows from the roster of a secure sum, which comes with the question, and for an evaluation from its
study, which comes with an offer. A link that has seen no offer since it started does not know, and sends no counts.
"""

import json
from dataclasses import replace

import numpy as np

from shared.errors import SettingsError
from shared.private_evaluation.cells import Cells
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    without_histogram,
)
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
        return replace(without_histogram(task, Status.FAILED), masked=_nothing_hidden(task.roster, name, cells))


def as_long_as_trained(reply: TrainReply, task: TrainTask, *, name: str) -> TrainReply:
    """Return a reply; in a secure sum, one without an update with zeros in place of what would hide it.

    Guarantee: what a node answers in a secure sum has one length, whether its vault or its link fails.

    Args:
        reply: the vault's, or the link's own.
        task: the question.
        name: this node's, in rosters.
    """
    if not task.roster or reply.status is Status.TRAINED:
        return reply
    hidden = _nothing_hidden(task.roster, name, len(task.adapter))
    return replace(reply, update=np.zeros(0, np.float32), masked=hidden)


def _nothing_hidden(roster: bytes, name: str, length: int) -> bytes:
    try:
        nodes = len(Roster.from_bytes(roster).entries)
    except SecureSumError:
        nodes = 0
    return bytes(masked_bytes(name, nodes, length))
