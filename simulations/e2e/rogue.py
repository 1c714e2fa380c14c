"""A member that misbehaves: it speaks the protocol and sends what no vault would."""

import json
import math
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from client.link import fleet as fleet_module
from client.link.fleet import Fleet, Received
from client.link.loop import Link
from client.link.membership import membership
from client.settings import folders, load_node
from shared.privacy.noise_schedule import schedule_of
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
    Vector,
    without_content,
    without_histogram,
)
from shared.study.declaration import Study, recorded
from shared.study.schedule import round_factors

HUGE_FLOATS = 75_000_000
TIMES_TOO_LONG = 100
GOOD_ANSWERS = 3
"""Before a node that replays begins to send the last of them again and again."""
MANY_OBJECTS = 2500
KINDS = ("nan", "huge", "shape", "many", "norm", "impostor", "stale", "replay")
"""In an order in which no two in a row leave a round without an answer: such a node would sit out the next rounds."""
NOT_TAKEN = ("huge", "many", "impostor")
"""What the gateway does not let through: that node has not answered at all."""


class Rogue:
    """A vault that says yes to every study and answers with something wrong.

    Args:
        kind: what is wrong with its updates.
        study: that it is asked to train.
        size: its declared number of records.
    """

    def __init__(self, kind: str, study: Study, size: int) -> None:
        self._kind, self._study, self._size = kind, study, size
        self._good: TrainReply | None = None
        self._answered = 0

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Say yes."""
        return OfferReply(offer.study_run, Status.APPROVED)

    def leg(self, task: LegTask) -> LegReply:
        """Take part in no secure sum."""
        return without_content(task, Status.REFUSED_STUDY)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Count nothing."""
        return without_histogram(task, Status.REFUSED_STUDY)

    def train(self, task: TrainTask) -> TrainReply:
        """Return something that must be rejected."""
        reply = TrainReply(
            task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, self._update(task)
        )
        if self._kind == "stale":
            return replace(reply, round=task.round - 1, base_sha256="0" * 64)
        if self._kind == "replay":
            # the first task may be one that was left in the link's inbox: too late to be good even once
            self._answered += 1
            self._good = reply if self._answered <= GOOD_ANSWERS or self._good is None else self._good
            return self._good
        return reply

    def _update(self, task: TrainTask) -> Vector:
        honest = np.full(len(task.adapter), 1e-3, np.float32)
        if self._kind == "nan":
            honest[0] = np.nan
        if self._kind == "norm":
            length = TIMES_TOO_LONG * honest_norm(self._study, task.round, self._size, len(honest))
            return honest * np.float32(length / np.linalg.norm(honest))
        if self._kind == "shape":
            return honest[:-1]
        # noise: Flower sends equal chunks once
        return np.random.default_rng().random(HUGE_FLOATS, np.float32) if self._kind == "huge" else honest


def connected(fleet: Fleet, kind: str) -> Fleet:
    """Return a connection that sends more objects than a reply has, or says that it is another node."""
    reply = fleet.reply

    def send_many(received: Received, content: RecordDict) -> None:
        more = {f"r{number}": ConfigRecord({"x": number}) for number in range(MANY_OBJECTS)}
        reply(received, RecordDict({**content, **more}))

    def send_as_another(message: Message) -> ProtoMessage:
        proto = message_to_proto(message)
        proto.metadata.src_node_id ^= 1
        return proto

    if kind == "many":
        vars(fleet)["reply"] = send_many
    if kind == "impostor":
        vars(fleet_module)["message_to_proto"] = send_as_another
    return fleet


def honest_norm(study: Study, number: int, size: int, dimension: int) -> float:
    """Return the length of an honest update, nearly all noise (one step: rate sigma C sqrt(d) / q n)."""
    training, schedule = study.training, schedule_of(study)
    factors = round_factors(study, number)
    rate = max(training.learning_rate, training.adapter_learning_rate)
    step = schedule.noise_multiplier * schedule.clip_norm * math.sqrt(dimension) / (schedule.sampling_rate * size)
    return rate * step * math.sqrt(sum(factor**2 for factor in factors))


def main(config: Path, kind: str, study: Path) -> None:
    """Run until killed."""
    settings = load_node(config)
    (size,) = (policy.declared_size for policy in settings.datasets.values())
    member, base = membership(folders(config, settings).link), config.resolve().parent
    Link(
        lambda: connected(member.connect(settings.server, base), kind),
        Rogue(kind, recorded(json.loads(study.read_text()), where=str(study)), size),
        folders(config, settings).link,
        server=member.server,
        node_id=member.node_id,
        stop=threading.Event(),
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
