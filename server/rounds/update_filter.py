"""Accepts a reply, or rejects it with a reason. Nothing a node sends can end a run."""

import math
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.common.constant import ErrorCode

from server.rounds.round import Reason
from server.rounds.update_bounds import LARGEST_NORM
from shared.errors import EncodingError, PeerError, VersionError
from shared.protocol.flower_records import decode_reply
from shared.protocol.messages import NO_POSITION, LedgerPosition, Status, TrainReply, TrainTask, Vector

NO_ANSWER = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE})
"""Flower's own errors: the node's connection broke, or the question or its reply expired."""
BLOCK = 2**15  # floats that are looked at once: no copy of a whole adapter is made
NEVER_READ = frozenset({Reason.MALFORMED, Reason.OVERSIZED})
"""Reasons for which a reply is not read at all: they come as an error in its place."""


@dataclass(frozen=True)
class Accepted:
    """An update that may be aggregated."""

    update: Vector
    ledger: LedgerPosition = NO_POSITION
    """The node's ledger when it paid for the round."""
    quiet: bool = False
    """Whether it is quieter than its own noise makes it: the node adds less than it declares, or none."""


@dataclass(frozen=True)
class Declined:
    """A node's own refusal, by its code."""

    status: Status
    ledger: LedgerPosition = NO_POSITION
    """The node's ledger: a round that failed after it was paid for is in it too."""


@dataclass(frozen=True)
class Rejected:
    """A reply that is not used, and why."""

    reason: Reason
    ledger: LedgerPosition = NO_POSITION
    """The node's ledger, if this was an answer to this round at all."""


@dataclass(frozen=True)
class Unanswered:
    """Flower's word that no reply will come to this question; the node may answer another one."""


def inspect(message: Message, task: TrainTask, *, largest_norm: float) -> Accepted | Declined | Rejected | Unanswered:
    """Accept or reject one reply to one task.

    Args:
        message: as it came from Flower; may hold an error, or anything.
        task: what the node was asked.
        largest_norm: bound on the update's l2 norm, from `norm_bound`.
    """
    reply = trained_reply(message, task)
    if not isinstance(reply, TrainReply):
        return reply
    reason = _implausible(reply.update, task, largest_norm)
    return Rejected(reason, reply.ledger) if reason is not None else Accepted(reply.update, reply.ledger)


def trained_reply(message: Message, task: TrainTask) -> TrainReply | Declined | Rejected | Unanswered:
    """Return a reply that belongs to its task and says that the node has trained, or what else it is.

    Args:
        message: as it came from Flower; may hold an error, or anything.
        task: what the node was asked; one with a roster is replied to with a masked vector.
    """
    if not message.has_content():
        if message.error.code in NO_ANSWER:
            return Unanswered()
        return Rejected(Reason(message.error.reason) if message.error.reason in NEVER_READ else Reason.NODE_ERROR)
    try:
        reply = decode_reply(message.content, task.wire, masked=bool(task.roster))
    except VersionError:
        return Declined(Status.REFUSED_VERSION)
    except EncodingError:
        return Rejected(Reason.SHAPE)
    except PeerError:
        return Rejected(Reason.MALFORMED)
    if reply.status is Status.REFUSED_VERSION:
        # whoever cannot read the task cannot say which one it was
        return Declined(reply.status)
    reason = _mismatch(reply, task)
    if reason is not None:
        return Rejected(reason)
    if reply.status is not Status.TRAINED:
        return Declined(reply.status, reply.ledger)
    return reply


def _mismatch(reply: TrainReply, task: TrainTask) -> Reason | None:
    if (reply.study_sha256, reply.study_run) != (task.study_sha256, task.study_run):
        return Reason.WRONG_STUDY
    if reply.round != task.round or reply.base_sha256 != task.adapter_sha256:
        return Reason.STALE
    return None


def _implausible(update: Vector, task: TrainTask, largest_norm: float) -> Reason | None:
    if update.shape != task.adapter.shape:
        return Reason.SHAPE
    if task.wire == "int64":
        return None  # behind a mask no single summand can be judged
    norm = _norm(update)
    if not math.isfinite(norm):
        return Reason.NOT_FINITE
    if norm == 0:
        return Reason.NO_MOVEMENT
    if norm > min(largest_norm, LARGEST_NORM):
        return Reason.NORM
    return None


def _norm(update: Vector) -> float:
    """Return the length in float64, where no square of a float32 overflows or vanishes."""
    total, block = 0.0, np.empty(min(len(update), BLOCK))
    with np.errstate(invalid="ignore"):  # NaNs come in kinds, and converting some of them warns
        for start in range(0, len(update), BLOCK):
            part = block[: len(update[start : start + BLOCK])]
            part[:] = update[start : start + BLOCK]
            total += float(part @ part)
    return math.sqrt(total)
