"""A node's answer: packed updates, protocol fields and typed codes, whatever was asked and whatever goes wrong."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client.answer import answer
from shared.errors import RunError
from shared.protocol.flower_records import decode_offer_reply, decode_reply, encode_offer, encode_task
from shared.protocol.messages import (
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    without_content,
)
from shared.protocol.sum_records import decode_leg_reply, encode_leg

ADAPTER = np.arange(50, dtype=np.float32)
TASK = TrainTask("s" * 64, "r-1", 3, ADAPTER)


class AwayVault:
    """Fails with a message that would tell everything, and counts what reaches it."""

    def __init__(self) -> None:
        self.asked = 0

    def train(self, task: TrainTask) -> TrainReply:
        self.asked += 1
        raise RunError("patient Anna, row 17 of /data/ward.csv, loss 3.2")

    def offer(self, offer: StudyOffer) -> OfferReply:
        self.asked += 1
        raise RunError("patient Anna, row 17 of /data/ward.csv, loss 3.2")

    def leg(self, task: LegTask) -> LegReply:
        self.asked += 1
        raise RunError("patient Anna, row 17 of /data/ward.csv, loss 3.2")


def test_whatever_happens_at_the_vault_one_code_leaves() -> None:
    vault = AwayVault()
    message = Message(encode_task(TASK), 7, "train")
    reply = decode_reply(answer(message, vault))
    assert reply.status is Status.FAILED and not reply.update.any() and len(reply.update) == len(ADAPTER)
    offered = Message(encode_offer(StudyOffer("r-1", "{}")), 7, "query")
    assert decode_offer_reply(answer(offered, vault)) == OfferReply("r-1", Status.FAILED)


LEG = LegTask("opening", "s" * 64, "r-1", 3, b"\x00boxes")


class SigningVault(AwayVault):
    """Answers a question of a secure sum."""

    def leg(self, task: LegTask) -> LegReply:
        return LegReply(task.leg, task.study_run, task.round, Status.TRAINED, task.content[::-1])


def test_a_question_of_a_secure_sum_reaches_the_vault_and_its_answer_the_server() -> None:
    reply = decode_leg_reply(answer(Message(encode_leg(LEG), 7, "query"), SigningVault()))
    assert reply == LegReply("opening", "r-1", 3, Status.TRAINED, LEG.content[::-1])


def test_a_question_of_a_secure_sum_gets_a_code_where_the_vault_is_away_or_it_cannot_be_read() -> None:
    vault = AwayVault()
    assert decode_leg_reply(answer(Message(encode_leg(LEG), 7, "query"), vault)) == without_content(LEG, Status.FAILED)
    unreadable = {
        Status.REFUSED_STUDY: ConfigRecord({"protocol-version": 8, "leg": "unmask"}),
        Status.REFUSED_VERSION: ConfigRecord({"protocol-version": 99}),
    }
    for code, record in unreadable.items():
        reply = decode_leg_reply(answer(Message(RecordDict({"leg": record}), 7, "query"), vault))
        assert (reply.status, reply.study_run, reply.content) == (code, "", b"") and vault.asked == 1


NEWER = ConfigRecord({"protocol-version": 99})


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (RecordDict(), Status.REFUSED_STUDY),
        (RecordDict({"x": ConfigRecord()}), Status.REFUSED_STUDY),
        (RecordDict({"task": ConfigRecord(), "offer": ConfigRecord()}), Status.REFUSED_STUDY),
        (RecordDict({"task": NEWER, "offer": NEWER}), Status.REFUSED_VERSION),
    ],
)
@pytest.mark.parametrize("kind", ["train", "query", "evaluate"])
def test_what_is_no_task_gets_a_code_and_never_reaches_the_vault(content: RecordDict, code: Status, kind: str) -> None:
    vault = AwayVault()
    records = answer(Message(content, 7, kind), vault)
    reply = decode_offer_reply(records) if kind == "query" else decode_reply(records)
    assert reply.status is code and vault.asked == 0
