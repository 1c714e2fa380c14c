"""A node's answer to a message of the server: one way, whether a link or a simulation's ClientApp was asked.

| a message | the answer |
|---|---|
| that cannot be read | a code: `refused_version`, or `refused_study` |
| a task | what the trainer answers, in the task's own version of the protocol |
| an offer | how the node stands to the study |
| a further question of a secure sum, or an evaluation | what the vault answers |
| anything while the vault is away | `failed` |
"""

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
from flwr.app import Message, RecordDict

from shared.errors import PeerError, RunError, VersionError
from shared.protocol.evaluation_records import decode_evaluation, encode_evaluation_reply, is_evaluation
from shared.protocol.flower_records import decode_offer, decode_task, encode_offer_reply, encode_reply
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    without_content,
    without_histogram,
    without_update,
)
from shared.protocol.sum_records import decode_leg, encode_leg_reply, is_leg
from shared.protocol.versions import SPOKEN

log = logging.getLogger(__name__)


class Trainer(Protocol):
    """Whatever trains: a vault, one study's rounds, a simulated site."""

    def train(self, task: TrainTask) -> TrainReply:
        """Answer a task; never raises for what it or the data holds.

        Raises:
            RunError: the vault is away.
        """
        ...


class Vault(Trainer, Protocol):
    """A trainer that is shown studies before they begin, and takes part in secure sums."""

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Keep a study, and say how this node stands to it.

        Raises:
            RunError: the vault is away.
        """
        ...

    def leg(self, task: LegTask) -> LegReply:
        """Answer a question of a secure sum, or refuse it by a code.

        Raises:
            RunError: the vault is away.
        """
        ...

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Answer an evaluation; never raises for what it or the data holds.

        Raises:
            RunError: the vault is away.
        """
        ...


def answer(message: Message, vault: Vault) -> RecordDict:
    """Answer a task, an offer, an evaluation, or a further question of a secure sum.

    Guarantee: a node sends packed updates, protocol fields and typed codes, and nothing else.
    """
    if message.metadata.message_type == "query" and is_leg(message.content):
        return encode_leg_reply(_leg(message.content, vault))
    if message.metadata.message_type == "query" and is_evaluation(message.content):
        return encode_evaluation_reply(_evaluation(message.content, vault))
    if message.metadata.message_type == "query":
        return encode_offer_reply(_stance(message.content, vault))
    return answer_task(message.content, lambda _task: vault)


def answer_task(content: RecordDict, trainer_for: Callable[[TrainTask], Trainer]) -> RecordDict:
    """Decode a task, train it, and encode the reply in the task's version of the protocol."""
    try:
        task = decode_task(content)
    except (PeerError, ValueError) as error:
        return encode_reply(TrainReply("", "", 0, "", _unreadable(error), np.zeros(0, np.float32)))
    try:
        reply = trainer_for(task).train(task)
    except (RunError, PeerError) as error:
        log.error("Round %d failed: %s", task.round, error)
        reply = without_update(task, Status.FAILED)
    return encode_reply(reply, version=task.version)


def _stance(content: RecordDict, vault: Vault) -> OfferReply:
    try:
        offer = decode_offer(content)
    except (PeerError, ValueError) as error:
        return OfferReply("", _unreadable(error))
    if SPOKEN.common(offer.versions) is None:
        log.error("A study was refused: the server speaks protocol versions %d to %d.", *offer.versions)
        return OfferReply(offer.study_run, Status.REFUSED_VERSION, SPOKEN)
    try:
        return vault.offer(offer)
    except (RunError, PeerError, ValueError) as error:
        log.error("An offer could not be shown to the vault: %s", error)
        return OfferReply(offer.study_run, Status.FAILED)


def _leg(content: RecordDict, vault: Vault) -> LegReply:
    try:
        task = decode_leg(content)
    except (PeerError, ValueError) as error:
        return LegReply("survivors", "", 0, _unreadable(error))
    try:
        return vault.leg(task)
    except (RunError, PeerError) as error:
        log.error("A question of the secure sum of round %d could not be asked: %s", task.round, error)
        return without_content(task, Status.FAILED)


def _evaluation(content: RecordDict, vault: Vault) -> EvaluationReply:
    try:
        task = decode_evaluation(content)
    except (PeerError, ValueError) as error:
        return EvaluationReply("", 0, "", _unreadable(error), np.zeros(0, np.int64))
    try:
        return vault.evaluate(task)
    except (RunError, PeerError) as error:
        log.error("Evaluation %d failed: %s", task.number, error)
        return without_histogram(task, Status.FAILED)


def _unreadable(error: Exception) -> Status:
    log.error("A message was refused: %s", error)
    return Status.REFUSED_VERSION if isinstance(error, VersionError) else Status.REFUSED_STUDY
