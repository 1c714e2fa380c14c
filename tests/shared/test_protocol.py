"""Messages survive the trip, and anything else is one PeerError."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from shared.errors import PeerError
from shared.protocol import Status, TrainReply, TrainTask, decode_reply, decode_task, digest, encode_reply, encode_task

VECTOR = np.arange(5, dtype=np.float32)
TASK = TrainTask("a" * 64, "run", 3, VECTOR)
REPLY = TrainReply("a" * 64, "run", 3, digest(VECTOR), Status.TRAINED, VECTOR)


def test_task_and_reply_survive_the_trip() -> None:
    task, reply = decode_task(encode_task(TASK)), decode_reply(encode_reply(REPLY))
    assert (task.study_sha256, task.study_run, task.round) == ("a" * 64, "run", 3)
    assert np.array_equal(task.adapter, VECTOR) and np.array_equal(reply.update, VECTOR)
    assert reply.base_sha256 == digest(task.adapter) and reply.status is Status.TRAINED


def spoiled(key: str, value: Any) -> RecordDict:
    records = encode_reply(REPLY)
    records["reply"][key] = value
    return records


def with_array(array: Array) -> RecordDict:
    records = encode_reply(REPLY)
    records["update"] = ArrayRecord({"packed": array})
    return records


BAD: dict[str, RecordDict] = {
    "empty": RecordDict(),
    "version": spoiled("protocol-version", 99),
    "status": spoiled("status", 77),
    "round as text": spoiled("round", "3"),
    "study as number": spoiled("study-sha256", 1),
    "two dimensions": with_array(Array(np.zeros((2, 2), np.float32))),
    "float64": with_array(Array(np.zeros(5))),
    "no array": with_array(Array("float32", (5,), "numpy.ndarray", b"junk")),
    "config missing": RecordDict({"reply": ConfigRecord({})}),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_reply_is_a_peer_error(case: str) -> None:
    with pytest.raises(PeerError, match="Expected"):
        decode_reply(BAD[case])


def test_adapter_that_does_not_match_its_digest_is_refused() -> None:
    records = encode_task(TASK)
    records["adapter"] = ArrayRecord({"packed": Array(VECTOR + 1)})
    with pytest.raises(PeerError, match="digest"):
        decode_task(records)
