"""Which replies are accepted, and which are rejected with which reason."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from server.rounds.round import Reason
from server.rounds.update_bounds import LARGEST_NORM
from server.rounds.update_filter import BLOCK, Accepted, Declined, Rejected, Unanswered, inspect
from shared.protocol.flower_records import encode_reply, encode_task
from shared.protocol.messages import PROTOCOL_VERSION, Status, TrainReply, TrainTask, digest, without_update
from shared.protocol.update_encoding import HEADER, WIRES, Encoding, Grid, Wire

TASK = TrainTask("s" * 64, "run", 3, np.zeros(4, np.float32))
GOOD = TrainReply(TASK.study_sha256, "run", 3, digest(TASK.adapter), Status.TRAINED, np.ones(4, np.float32))


def judged(reply: Any, *, largest_norm: float = 10.0, wire: Wire = "float32") -> Any:
    question = Message(encode_task(TASK), 1, "train")
    content = encode_reply(reply) if isinstance(reply, TrainReply) else reply
    return inspect(Message(content, reply_to=question), replace(TASK, wire=wire), largest_norm=largest_norm)


def test_an_honest_update_is_accepted() -> None:
    verdict = judged(GOOD)
    assert isinstance(verdict, Accepted) and verdict.update.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"study_sha256": "t" * 64}, Reason.WRONG_STUDY),
        ({"study_run": "another"}, Reason.WRONG_STUDY),
        ({"round": 2}, Reason.STALE),
        ({"base_sha256": digest(np.ones(4, np.float32))}, Reason.STALE),
        ({"update": np.ones(5, np.float32)}, Reason.SHAPE),
        ({"update": np.array([1, np.nan, 0, 0], np.float32)}, Reason.NOT_FINITE),
        ({"update": np.array([1, -np.inf, 0, 0], np.float32)}, Reason.NOT_FINITE),
        ({"update": np.zeros(4, np.float32)}, Reason.NO_MOVEMENT),
        ({"update": np.full(4, 6, np.float32)}, Reason.NORM),
        ({"update": np.full(4, 3e38, np.float32)}, Reason.NORM),
    ],
)
def test_what_is_wrong_is_rejected_with_its_reason(change: dict[str, Any], reason: Reason) -> None:
    assert judged(replace(GOOD, **change)) == Rejected(reason)


def test_a_connection_that_broke_is_no_answer_and_a_node_that_failed_is_one() -> None:
    unavailable = {code for code in range(12) if judged(Error(code=code, reason="")) == Unanswered()}
    assert unavailable == {3, 4, 5}, "the question, its reply, the node"
    assert judged(Error(code=2, reason="")) == Rejected(Reason.NODE_ERROR)


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_one_entry_of_many_is_seen_wherever_it_stands(place: int) -> None:
    task = replace(TASK, adapter=np.zeros(2 * BLOCK + 1, np.float32))
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)[0]
    smallest = np.nextafter(np.float32(0), np.float32(1))
    for value, reason in ((signalling, Reason.NOT_FINITE), (11, Reason.NORM), (smallest, None), (9.9, None)):
        update = np.zeros_like(task.adapter)
        update[place] = value
        reply = replace(GOOD, base_sha256=task.adapter_sha256, update=update)
        message = Message(encode_reply(reply), reply_to=Message(encode_task(task), 1, "train"))
        verdict = inspect(message, task, largest_norm=10.0)
        assert getattr(verdict, "reason", None) == reason


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"reply": ConfigRecord({"protocol-version": "4"})}),
        RecordDict({"reply": ConfigRecord({"protocol-version": PROTOCOL_VERSION})}),
        Error(code=8, reason="gone"),
    ],
)
def test_garbage_is_rejected(content: Any) -> None:
    assert judged(content).reason in (Reason.MALFORMED, Reason.NODE_ERROR)


def test_a_refusal_keeps_its_code() -> None:
    assert judged(replace(GOOD, status=Status.FAILED, update=np.zeros(4, np.float32))) == Declined(Status.FAILED)


@pytest.mark.parametrize(
    "content",
    [
        TrainReply("", "", 0, "", Status.REFUSED_VERSION, np.zeros(0, np.float32)),
        RecordDict({"reply": ConfigRecord({"protocol-version": 1})}),
        RecordDict({"reply": ConfigRecord({"protocol-version": PROTOCOL_VERSION + 1})}),
    ],
)
def test_a_refusal_of_the_version_is_told_as_one(content: Any) -> None:
    assert judged(content) == Declined(Status.REFUSED_VERSION)


GRIDS = (Grid.fitted(3, largest=2.0, finest=0.01), Grid.fitted(1, largest=2.0, finest=0.01))
SHORT: dict[Wire, TrainReply] = {
    "bfloat16": replace(GOOD, encoding=Encoding("bfloat16")),
    "int8": replace(GOOD, update=GRIDS[0].values()[200:204], encoding=Encoding("int8", GRIDS)),
}


@pytest.mark.parametrize("wire", SHORT)
def test_an_update_in_the_studys_encoding_is_accepted_as_float32(wire: Wire) -> None:
    verdict = judged(SHORT[wire], wire=wire)
    assert isinstance(verdict, Accepted) and verdict.update.dtype == np.float32
    assert verdict.update.tolist() == SHORT[wire].update.tolist()


def spoiled(width: float, bend: float, codes: bytes = bytes(4)) -> RecordDict:
    records = encode_reply(SHORT["int8"])
    records["reply"]["update"] = HEADER.pack(3, width, bend) + HEADER.pack(1, 1.0, 0.01) + codes
    return records


@pytest.mark.parametrize(
    "reply",
    [
        spoiled(float("nan"), 0.01),
        spoiled(float("inf"), 0.01),
        spoiled(1.0, float("inf")),
        spoiled(1.0, 0.01, bytes(3)),
        spoiled(1.0, 0.01, b"\x80\0\0\0"),
        GOOD,
        SHORT["bfloat16"],
        replace(SHORT["int8"], update=np.zeros(5, np.float32), encoding=Encoding.of_zeros("int8", 5)),
    ],
)
def test_what_is_not_in_the_studys_encoding_has_the_wrong_shape(reply: Any) -> None:
    assert judged(reply, wire="int8") == Rejected(Reason.SHAPE)


def test_a_grid_may_not_be_wider_than_an_honest_update() -> None:
    wide = (Grid.fitted(3, largest=1e6, finest=1.0), GRIDS[1])
    reply = replace(GOOD, update=wide[0].values()[[-1, -1, -1, 127]], encoding=Encoding("int8", wide))
    assert judged(reply, wire="int8") == Rejected(Reason.NORM)


def test_a_failure_in_any_encoding_keeps_its_code() -> None:
    for wire in WIRES:
        failed = without_update(replace(TASK, wire=wire), Status.FAILED)
        assert judged(failed, wire=wire) == Declined(Status.FAILED)


def test_no_study_can_declare_the_overflow_bound_away() -> None:
    assert judged(replace(GOOD, update=np.full(4, LARGEST_NORM, np.float32)), largest_norm=np.inf) == Rejected(
        Reason.NORM
    )
