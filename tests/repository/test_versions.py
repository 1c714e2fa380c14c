"""A server and a node of different age meet in the newest version that both speak, or say so to whoever must act."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

import client.answer
import server.rounds.participants
import shared.protocol.flower_records
from client.answer import answer
from server.aggregation.mean import UniformMean
from server.rounds.checkpoints import Checkpoints
from server.rounds.coordinator import Coordinator, RunTerms
from server.rounds.participants import ApprovedOnly
from shared.errors import PeerError, VersionError
from shared.protocol.evaluation_records import (
    decode_evaluation,
    decode_evaluation_reply,
    encode_evaluation,
    encode_evaluation_reply,
)
from shared.protocol.flower_records import decode_reply, decode_task, encode_reply, encode_task
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
)
from shared.protocol.sum_records import encode_leg, encode_leg_reply
from shared.protocol.versions import SAYS_EVALUATION, SAYS_SECURE_SUM, SAYS_SUMMED_EVALUATION, SPOKEN, Versions

ranges = st.tuples(st.integers(1, 9), st.integers(0, 4)).map(lambda found: Versions(found[0], sum(found)))
OLD_OFFER = {"protocol-version": 3, "study-run": "r-1", "study-json": "{}"}
OLD_STANCE = {"protocol-version": 3, "study-run": "r-1", "status": 13}


@given(ranges, ranges)
def test_the_newest_common_version_is_chosen_whoever_asks(one: Versions, other: Versions) -> None:
    both = set(range(one.oldest, one.newest + 1)) & set(range(other.oldest, other.newest + 1))
    assert one.common(other) == other.common(one) == max(both, default=None)


class AgreeableTrainer:
    """Says yes to everything."""

    def train(self, task: TrainTask) -> TrainReply:
        ones = np.ones_like(task.adapter)
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, ones)

    def offer(self, offer: StudyOffer) -> OfferReply:
        return OfferReply(offer.study_run, Status.APPROVED)

    def leg(self, task: LegTask) -> LegReply:
        return without_content(task, Status.REFUSED_STUDY)


class Node:
    """A node of some age behind a grid; what it is sent in a version it does not speak it refuses, as it would."""

    def __init__(self, spoken: Versions | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spoken, self._monkeypatch = spoken, monkeypatch
        self.asked_in: list[int] = []
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return [7]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            names.append(f"m-{id(message)}")
            message.metadata.__dict__["_message_id"] = names[-1]
            self._replies[names[-1]] = Message(self._answer(message), reply_to=message)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def _answer(self, message: Message) -> RecordDict:
        if message.metadata.message_type == "train":
            self.asked_in.append(message.content["task"]["protocol-version"])  # type: ignore[index,arg-type]
        elif self.spoken is None:
            assert OLD_OFFER.items() <= dict(message.content["offer"]).items(), "version 3 reads these"  # type: ignore[arg-type]
            return RecordDict({"stance": ConfigRecord(OLD_STANCE)})  # type: ignore[arg-type]
        with self._monkeypatch.context() as patched:
            ours = self.spoken or Versions(3, 3)
            patched.setattr(client.answer, "SPOKEN", ours)
            patched.setattr(
                AgreeableTrainer, "offer", lambda _self, offer: OfferReply(offer.study_run, Status.APPROVED, ours)
            )
            patched.setattr(shared.protocol.flower_records.config_of, "__defaults__", (ours,))
            return answer(message, AgreeableTrainer())


def study_with(node: Any, server_speaks: Versions, monkeypatch: pytest.MonkeyPatch, folder: Any) -> list[str]:
    """One round over this node; what became of it."""
    monkeypatch.setattr(server.rounds.participants, "SPOKEN", server_speaks)
    monkeypatch.setattr(shared.protocol.flower_records.config_of, "__defaults__", (server_speaks,))
    offer = StudyOffer("r-1", "{}", server_speaks)
    coordinator = Coordinator(
        node,
        RunTerms("study", "r-1", 1, 1, 5.0),
        initial=np.zeros(3, np.float32),
        largest_norm=lambda _number: 100.0,
        aggregation=lambda start: UniformMean(start.length),
        checkpoints=Checkpoints(folder),
        participants=ApprovedOnly(node, offer, quorum=1, patience_s=0.0),
    )
    (record,) = coordinator.run().records
    return ["accepted" for _ in record["accepted"]] + [entry["status"] for entry in record["refused"]]


@pytest.mark.parametrize(
    ("server_speaks", "node_speaks", "chosen"),
    [
        (Versions(3, 4), Versions(3, 4), 4),
        (Versions(3, 4), None, 3),
        (Versions(3, 4), Versions(3, 3), 3),
        (Versions(3, 3), Versions(3, 4), 3),
        (Versions(3, 5), Versions(3, 6), 5),
        (Versions(3, 6), Versions(3, 5), 5),
        (Versions(3, 6), Versions(4, 9), 6),
        (Versions(4, 9), Versions(3, 5), 5),
    ],
)
def test_a_round_is_asked_and_answered_in_the_newest_common_version(
    server_speaks: Versions,
    node_speaks: Versions | None,
    chosen: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    node = Node(node_speaks, monkeypatch)
    assert study_with(node, server_speaks, monkeypatch, tmp_path) == ["accepted"] and node.asked_in == [chosen]


@pytest.mark.parametrize("node_speaks", [Versions(1, 2), Versions(SPOKEN.newest + 1, 9)])
def test_a_node_without_a_common_version_is_told_to_the_operator_and_never_asked(
    node_speaks: Versions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node: Any = Node(node_speaks, monkeypatch)
    reports: list[Any] = []
    asked = ApprovedOnly(node, StudyOffer("r-1", "{}"), quorum=1, patience_s=0.0, on_change=reports.append)
    monkeypatch.setattr(
        server.rounds.participants.time, "sleep", lambda _s: reports and (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        asked.members()
    assert set(reports[-1]) == {"refused_version"}
    assert f"speaks protocol versions {node_speaks.oldest} to {node_speaks.newest}" in caplog.text


def test_a_node_that_went_back_to_an_older_version_refuses_by_name_and_is_asked_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    node = Node(SPOKEN, monkeypatch)
    really = node._answer

    def older(message: Message) -> RecordDict:
        node.spoken = None if message.metadata.message_type == "train" else SPOKEN
        return really(message)

    monkeypatch.setattr(node, "_answer", older)
    assert study_with(node, SPOKEN, monkeypatch, tmp_path) == ["refused_version"]


NEWER_STUDIES: dict[str, tuple[dict[str, Any], int]] = {
    "int8": ({"federation": {"wire": "int8"}}, 5),
    "another aggregation": ({"federation": {"aggregation": "median"}}, 6),
    "who asks": ({"study": {"contact": "office@example.org"}}, 7),
    "an evaluation": ({"evaluation": {"epsilon": 1.0}}, 9),
    "an evaluation in a secure sum": ({"evaluation": {"epsilon": 1.0}, "federation": {"secure_sum": "masked"}}, 10),
}


@pytest.mark.parametrize("case", NEWER_STUDIES)
@pytest.mark.parametrize("node_speaks", [None, Versions(3, 4)])
def test_an_older_node_refuses_the_version_of_a_study_that_it_cannot_know(
    case: str,
    node_speaks: Versions | None,
    make_study: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node: Any = Node(node_speaks, monkeypatch)
    reports: list[Any] = []
    sections, since = NEWER_STUDIES[case]
    offer = StudyOffer("r-1", "{}", make_study(**sections).versions)
    asked = ApprovedOnly(node, offer, quorum=1, patience_s=0.0, on_change=reports.append)
    monkeypatch.setattr(
        server.rounds.participants.time, "sleep", lambda _s: reports and (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        asked.members()
    assert set(reports[-1]) == {"refused_version"} and f"this study needs {since} to {SPOKEN.newest}" in caplog.text
    assert make_study(federation={"wire": "float32"}).versions == SPOKEN, "nothing new is asked of anybody"


def version_of(records: RecordDict, name: str) -> object:
    record = records[name]
    assert isinstance(record, ConfigRecord)
    return record["protocol-version"]


def test_questions_beside_a_task_travel_in_the_oldest_version_that_has_them() -> None:
    """They do not know which version the node speaks: written in our own, an older node could not read them."""
    leg, counts = LegTask("opening", "s" * 64, "r-1", 1, b"x"), np.zeros(2, np.int64)
    assert version_of(encode_leg(leg), "leg") == SAYS_SECURE_SUM
    assert version_of(encode_leg(replace(leg, purpose="evaluation")), "leg") == SAYS_SUMMED_EVALUATION
    assert version_of(encode_leg_reply(LegReply("opening", "r-1", 1, Status.TRAINED)), "leg") == SAYS_SECURE_SUM
    asked = EvaluationTask("s" * 64, "r-1", 1, np.ones(3, np.float32))
    own = EvaluationReply("r-1", 1, asked.adapter_sha256, Status.EVALUATED, counts)
    for roster, since in ((b"", SAYS_EVALUATION), (b"names", SAYS_SUMMED_EVALUATION)):
        question = encode_evaluation(replace(asked, roster=roster))
        assert version_of(question, "evaluation") == since and decode_evaluation(question).roster == roster
        reply = encode_evaluation_reply(replace(own, masked=roster))
        assert version_of(reply, "counts") == since and decode_evaluation_reply(reply).masked == roster


def test_a_code_that_a_server_cannot_know_is_sent_as_one_that_it_knows() -> None:
    refused = TrainReply("s" * 64, "r-1", 1, "0" * 64, Status.REFUSED_ADAPTER, np.zeros(3, np.float32))
    assert decode_reply(encode_reply(refused)).status is Status.REFUSED_ADAPTER
    assert decode_reply(encode_reply(refused, version=5)).status is Status.REFUSED_STUDY


def test_a_task_says_the_encoding_since_version_5_and_cannot_before() -> None:
    task = TrainTask("s" * 64, "r-1", 1, np.ones(3, np.float32), wire="int8")
    assert decode_task(encode_task(task)).wire == "int8"
    with pytest.raises(VersionError, match="version 5 for int8"):
        encode_task(replace(task, version=4))
    assert "wire" not in encode_task(replace(task, version=4, wire="float32"))["task"]  # type: ignore[operator]
    records = encode_task(task)
    records["task"]["wire"] = "int4"  # type: ignore[index,call-overload]
    with pytest.raises(PeerError, match="an encoding among float32, bfloat16, int8"):
        decode_task(records)


def test_a_task_says_its_version_and_version_3_is_still_read() -> None:
    task = TrainTask("s" * 64, "r-1", 1, np.ones(3, np.float32), version=3)
    records = encode_task(task)
    assert {records[name]["protocol-version"] for name in ("task", "echo")} == {3}  # type: ignore[index]
    assert decode_task(records).version == 3
