"""The questions of a secure sum survive the trip, and whatever else comes in their place is refused."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PeerError, VersionError
from shared.protocol.flower_records import (
    decode_offer,
    decode_offer_reply,
    decode_reply,
    decode_task,
    encode_offer,
    encode_offer_reply,
    encode_reply,
    encode_task,
)
from shared.protocol.messages import (
    LEGS,
    Leg,
    LegReply,
    LegTask,
    OfferReply,
    Peer,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
)
from shared.protocol.sum_records import (
    LARGEST_CONTENT_BYTES,
    decode_leg,
    decode_leg_reply,
    encode_leg,
    encode_leg_reply,
    is_leg,
)

ADAPTER = np.arange(5, dtype=np.float32)
LEG = LegTask("survivors", "s" * 64, "r-1", 3, b"\x00\xffwho")
PEERS = (Peer("north", "a" * 64), Peer("south", "b" * 64))


@pytest.mark.parametrize("leg", LEGS)
def test_questions_and_answers_survive_the_trip(leg: Leg) -> None:
    question = LegTask(leg, "s" * 64, "r-1", 3, b"\x00\xffwho")
    answer = LegReply(leg, "r-1", 3, Status.TRAINED, b"\x01\x00")
    assert is_leg(encode_leg(question)) and decode_leg(encode_leg(question)) == question
    assert decode_leg_reply(encode_leg_reply(answer)) == answer
    of_counts = LegTask(leg, "s" * 64, "r-1", 3, b"who", "evaluation")
    assert decode_leg(encode_leg(of_counts)) == of_counts


def test_an_offer_names_peers_and_its_answer_bears_an_entry() -> None:
    offer, stance = (
        StudyOffer("r-1", "{}", peers=PEERS),
        OfferReply("r-1", Status.APPROVED, declared_size=8500, entry=b"\x00signed"),
    )
    assert decode_offer(encode_offer(offer)) == offer
    assert decode_offer_reply(encode_offer_reply(stance)) == stance


def test_a_task_bears_a_roster_and_its_reply_what_is_added_to_the_sum() -> None:
    task = TrainTask("s" * 64, "r-1", 3, ADAPTER, roster=b"\x00names")
    assert decode_task(encode_task(task)).roster == task.roster
    reply = TrainReply("s" * 64, "r-1", 3, "b" * 64, Status.TRAINED, np.zeros(0, np.float32), masked=b"\x07" * 13)
    read = decode_reply(encode_reply(reply), masked=True)
    assert read.masked == reply.masked and len(read.update) == 0


def test_a_node_of_an_earlier_version_is_sent_no_roster() -> None:
    with pytest.raises(VersionError, match="protocol version 8 for a secure sum, got 7"):
        encode_task(TrainTask("s" * 64, "r-1", 3, ADAPTER, version=7, roster=b"x"))


def spoiled(key: str, value: Any) -> RecordDict:
    records = encode_leg(LEG)
    record = records["leg"]
    assert isinstance(record, ConfigRecord)
    record[key] = value
    return records


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("leg", "unmask"),
        ("leg", 3),
        ("round", -1),
        ("content", "text"),
        ("content", bytes(LARGEST_CONTENT_BYTES + 1)),
        ("purpose", "prediction"),
        ("purpose", 3),
        ("protocol-version", 7),
        ("protocol-version", 99),
    ],
)
def test_what_is_no_question_is_refused(key: str, value: Any) -> None:
    with pytest.raises(PeerError):
        decode_leg(spoiled(key, value))


@pytest.mark.parametrize(
    "peers",
    ["", "{", "[1]", '[["north"]]', '[["north", 3]]', '[["north", "short"]]', "[" * 9999, '[[3, "' + "a" * 64 + '"]]'],
)
def test_what_names_no_peers_is_refused(peers: str) -> None:
    records = encode_offer(StudyOffer("r-1", "{}", peers=PEERS))
    record = records["offer"]
    assert isinstance(record, ConfigRecord)
    record["peers"] = peers
    with pytest.raises(PeerError):
        decode_offer(records)


@given(st.binary(max_size=200))
def test_any_content_is_carried_as_it_is(content: bytes) -> None:
    assert decode_leg(encode_leg(LegTask("opening", "s", "r", 1, content))).content == content
