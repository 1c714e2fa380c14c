"""Messages survive the trip, and anything else is one PeerError."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from shared.errors import PeerError
from shared.protocol.flower_records import decode_reply, decode_task, encode_reply, encode_task, with_server_copy
from shared.protocol.messages import NO_MAC, LedgerPosition, Status, TrainReply, TrainTask, digest

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


BAD: dict[str, RecordDict] = {
    "empty": RecordDict(),
    "version": spoiled("protocol-version", 99),
    "status": spoiled("status", 77),
    "round as text": spoiled("round", "3"),
    "study as number": spoiled("study-sha256", 1),
    "bytes that are no float32": spoiled("update", b"junk!"),
    "update as text": spoiled("update", "0000"),
    "update as numbers": spoiled("update", [0.0, 1.0]),
    "config missing": RecordDict({"reply": ConfigRecord({})}),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_reply_is_a_peer_error(case: str) -> None:
    with pytest.raises(PeerError, match="Expected"):
        decode_reply(BAD[case])


def test_adapter_that_does_not_match_its_digest_is_refused() -> None:
    records = encode_task(TASK)
    records["task"]["adapter"] = (VECTOR + 1).tobytes()
    with pytest.raises(PeerError, match="digest"):
        decode_task(records)


@pytest.mark.parametrize("number", [-1, 0, 2**31, 2**63 - 1])
def test_a_task_is_for_a_round_that_counts_from_one_and_fits_the_wire(number: int) -> None:
    records = encode_task(TASK)
    records["task"]["round"] = number
    with pytest.raises(PeerError, match="round"):
        decode_task(records)


@pytest.mark.parametrize("key", ["study-run", "study-sha256"])
def test_half_a_character_is_no_text(key: str) -> None:
    records = encode_task(TASK)
    records["task"][key] = "r-\ud800"
    with pytest.raises(PeerError, match="half of a character"):
        decode_task(records)


def test_the_adapter_is_one_object_for_all_nodes_and_a_message_has_few() -> None:
    task, reply = encode_task(TASK), encode_reply(REPLY)
    first, second = (with_server_copy(task, LedgerPosition(n, str(n) * 64)) for n in (1, 2))
    assert first["task"].object_id == second["task"].object_id
    assert decode_task(second).server_copy == LedgerPosition(2, "2" * 64)
    assert set(task) == {"task", "echo"} and set(reply) == {"reply"}


def test_a_position_bears_the_nodes_mac_in_every_version_that_has_it() -> None:
    ours = LedgerPosition(3, "a" * 64, "b" * 64)
    for version, received in ((6, ours), (5, replace(ours, mac=NO_MAC))):
        task = replace(TASK, version=version, server_copy=ours)
        assert decode_task(encode_task(task)).server_copy == received
        assert decode_task(with_server_copy(encode_task(TASK), ours)).server_copy == ours
        assert decode_reply(encode_reply(replace(REPLY, ledger=ours), version=version)).ledger == received
    records = encode_task(TASK)
    records["echo"]["mac"] = "none"
    with pytest.raises(PeerError, match="MAC of a ledger"):
        decode_task(records)
