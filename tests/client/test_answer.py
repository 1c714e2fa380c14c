"""A node's answer: packed updates, protocol fields and typed codes, whatever was asked and whatever goes wrong."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client.answer import answer
from shared.errors import RunError
from shared.protocol.flower_records import decode_offer_reply, decode_reply, encode_offer, encode_task
from shared.protocol.messages import OfferReply, Status, StudyOffer, TrainReply, TrainTask

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


def test_whatever_happens_at_the_vault_one_code_leaves() -> None:
    vault = AwayVault()
    message = Message(encode_task(TASK), 7, "train")
    reply = decode_reply(answer(message, vault))
    assert reply.status is Status.FAILED and not reply.update.any() and len(reply.update) == len(ADAPTER)
    offered = Message(encode_offer(StudyOffer("r-1", "{}")), 7, "query")
    assert decode_offer_reply(answer(offered, vault)) == OfferReply("r-1", Status.FAILED)


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
