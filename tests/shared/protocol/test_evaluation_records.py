"""The question of an evaluation and its answer survive the trip, and whatever else comes in their place is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from shared.errors import PeerError
from shared.protocol.evaluation_records import (
    LARGEST_COUNTS_BYTES,
    LARGEST_MASKED_BYTES,
    decode_evaluation,
    decode_evaluation_reply,
    encode_evaluation,
    encode_evaluation_reply,
    evaluation_for,
    is_evaluation,
)
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LedgerPosition,
    Status,
    without_histogram,
)
from shared.secure_sum.messages import most_masked_bytes
from shared.study.evaluation import MOST_CELLS

ADAPTER = np.arange(5, dtype=np.float32)
POSITION = LedgerPosition(7, "a" * 64, "b" * 64)
TASK = EvaluationTask("s" * 64, "r-1", 3, ADAPTER, POSITION)
COUNTS = np.array([-5, 2**40, 0], np.int64)
REPLY = EvaluationReply("r-1", 3, TASK.adapter_sha256, Status.EVALUATED, COUNTS, POSITION)


def test_question_and_answer_survive_the_trip() -> None:
    read, reply = decode_evaluation(encode_evaluation(TASK)), decode_evaluation_reply(encode_evaluation_reply(REPLY))
    assert is_evaluation(encode_evaluation(TASK)) and (read.adapter == ADAPTER).all()
    assert replace(read, adapter=ADAPTER) == TASK
    assert (reply.histogram == COUNTS).all() and replace(reply, histogram=COUNTS) == REPLY
    other = LedgerPosition(9, "c" * 64, "d" * 64)
    assert decode_evaluation(evaluation_for(encode_evaluation(TASK), other)).server_copy == other
    assert 8 * MOST_CELLS == LARGEST_COUNTS_BYTES and most_masked_bytes(MOST_CELLS) <= LARGEST_MASKED_BYTES


def test_an_answer_without_counts_is_as_long_as_one_with_them() -> None:
    assert len(without_histogram(TASK, Status.FAILED, cells=3).histogram) == len(COUNTS)
    assert len(without_histogram(TASK, Status.REFUSED_POLICY).histogram) == 0


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("evaluation", "number", -1),
        ("evaluation", "number", 2**40),
        ("evaluation", "number", True),
        ("evaluation", "study-run", 3),
        ("evaluation", "adapter", "text"),
        ("evaluation", "adapter", b"odd"),
        ("evaluation", "adapter-sha256", "0" * 64),
        ("evaluation", "protocol-version", 8),
        ("evaluation", "protocol-version", 99),
        ("echo", "height", "7"),
        ("counts", "status", 99),
        ("counts", "histogram", b"seven b"),
        ("counts", "histogram", bytes(LARGEST_COUNTS_BYTES + 8)),
        ("counts", "histogram", [1, 2]),
        ("counts", "masked", "text"),
        ("counts", "masked", bytes(LARGEST_MASKED_BYTES + 1)),
        ("evaluation", "roster", "text"),
    ],
)
def test_what_is_no_evaluation_is_refused(name: str, key: str, value: Any) -> None:
    records = RecordDict({**encode_evaluation(TASK), **encode_evaluation_reply(REPLY)})
    record = records[name]
    assert isinstance(record, ConfigRecord)
    record[key] = value
    with pytest.raises(PeerError):
        (decode_evaluation_reply if name == "counts" else decode_evaluation)(records)
