"""Judge one answer to an evaluation: counts that fit the study, a node's own code, or neither."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from server.rounds.update_filter import NO_ANSWER
from shared.errors import PeerError, VersionError
from shared.protocol.evaluation_records import decode_evaluation_reply
from shared.protocol.messages import NO_POSITION, EvaluationReply, EvaluationTask, LedgerPosition, Status

UNREADABLE, NODE_ERROR = "unreadable", "node-error"
LARGEST_COUNT = 2**52
"""In steps of the grid: 268 million units. A thousand of them, added up, do not overflow."""


@dataclass(frozen=True)
class Answer:
    """One site's answer to one evaluation."""

    status: str
    """`evaluated`, the code of its refusal, `unreadable`, or `node-error`."""
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    ledger: LedgerPosition = NO_POSITION
    """The node's, when it paid."""
    masked: bytes = field(default=b"", repr=False)
    """Its part of a secure sum, in place of a histogram; never written to the run store."""

    @property
    def counted(self) -> bool:
        """Return whether it came with counts."""
        return self.status == Status.EVALUATED.name.lower()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"status": self.status, "histogram": self.histogram.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Answer":
        """Read what `as_dict` returned."""
        return cls(plain["status"], np.array(plain["histogram"], np.int64))


def histograms(answers: Mapping[str, Answer]) -> dict[str, NDArray[np.int64]]:
    """Return the counts of the sites that sent some, by site."""
    return {site: one.histogram for site, one in answers.items() if one.counted}


def inspected(message: Message, task: EvaluationTask, *, cells: int, summed: bool = False) -> Answer | None:
    """Return the answer in a message; None if it is Flower's word that no answer will come to this question.

    Guarantee: counts that do not fit the study's cells are not used, whatever a node sends.

    Args:
        message: as it came from Flower; may hold an error, or anything.
        task: what the node was asked.
        cells: counts that the study declares.
        summed: they come as a part of a secure sum, which is judged by its session.
    """
    if not message.has_content():
        return None if message.error.code in NO_ANSWER else Answer(NODE_ERROR)
    try:
        reply = decode_evaluation_reply(message.content)
    except VersionError:
        return Answer(Status.REFUSED_VERSION.name.lower())
    except PeerError:
        return Answer(UNREADABLE)
    if reply.status in (Status.REFUSED_VERSION, Status.REFUSED_STUDY):
        return Answer(reply.status.name.lower())  # whoever cannot read a task cannot say which one it was
    if not _belongs(reply, task):
        return Answer(UNREADABLE)
    if reply.status is not Status.EVALUATED:
        return Answer(reply.status.name.lower(), ledger=reply.ledger)
    if summed or reply.masked:
        counted = summed and reply.masked and not len(reply.histogram)
        return Answer(reply.status.name.lower() if counted else UNREADABLE, ledger=reply.ledger, masked=reply.masked)
    if len(reply.histogram) != cells or np.abs(reply.histogram.astype(float)).max(initial=0) > LARGEST_COUNT:
        return Answer(UNREADABLE, ledger=reply.ledger)
    return Answer(reply.status.name.lower(), reply.histogram, reply.ledger)


def _belongs(reply: EvaluationReply, task: EvaluationTask) -> bool:
    return (reply.study_run, reply.number, reply.adapter_sha256) == (task.study_run, task.number, task.adapter_sha256)
