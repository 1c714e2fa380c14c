"""A storm: connections break, replies get lost, the server is killed. Every update that is paid for is used."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from server.aggregation.mean import UniformMean
from server.rounds import asking, coordinator, participants
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import Coordinator, RunTerms
from shared.protocol.flower_records import decode_task, encode_reply
from shared.protocol.messages import Status, TrainReply, TrainTask, Vector

NODES, QUORUM, ROUNDS, LENGTH, DEADLINE_S = 5, 4, 25, 3, 300.0
TRAINING_S, NOTICED_S, LONGEST_AWAY_S, BACK_FOR_S = (3.0, 60.0), 10.0, 45.0, 5.0


class Killed(BaseException):
    """kill -9 of the server's process."""


@dataclass
class Node:
    """An honest node: trains a round once, keeps the bytes, and sends them again for the asking."""

    number: int
    chance: random.Random
    outbox: dict[int, tuple[float, TrainReply]] = field(default_factory=dict)
    """By round: when its training ends, and what it then sends."""
    away: tuple[float, float] = (0.0, 0.0)
    """From when until when its connection is broken, the last time."""

    def update(self, number: int) -> Vector:
        return np.random.default_rng([self.number, number]).standard_normal(LENGTH).astype(np.float32)

    def takes(self, task: TrainTask, now: float) -> tuple[float, TrainReply]:
        if task.round not in self.outbox:
            identity = (task.study_sha256, task.study_run, task.round, task.adapter_sha256)
            trained = TrainReply(*identity, Status.TRAINED, self.update(task.round))
            self.outbox[task.round] = (now + self.chance.uniform(*TRAINING_S), trained)
        done, reply = self.outbox[task.round]
        return max(done, now + 0.1), reply


class Weather:
    """Flower's Grid and a clock, over nodes whose connections break; a question of one that stays away is given up."""

    def __init__(self, seed: int, *, kills: int = 0) -> None:
        self.chance, self.now, self.ids = random.Random(seed), 0.0, 0
        self.nodes = {number: Node(number, random.Random(seed + number)) for number in range(1, NODES + 1)}
        self.open: dict[str, tuple[Message, float, TrainReply | None]] = {}
        self.next_break, self.kills, self.next_kill = 5.0, kills, 40.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.next_break:
            node = self.chance.choice([*self.nodes.values()])
            if self.now > node.away[1] + BACK_FOR_S:  # whoever is not seen for a minute is waited for no longer
                node.away = (self.now, self.now + self.chance.uniform(1.0, LONGEST_AWAY_S))
            self.next_break = self.now + self.chance.expovariate(1 / 20.0)
        if self.kills and self.now >= self.next_kill:
            self.kills, self.next_kill = self.kills - 1, self.now + self.chance.uniform(20.0, 150.0)
            self.open.clear()  # what is asked by the next process belongs to another of Flower's runs
            raise Killed

    def get_node_ids(self) -> list[int]:
        return [number for number, node in self.nodes.items() if not self.is_away(node)]

    def is_away(self, node: Node, *, since_s: float = 0.0) -> bool:
        return node.away[0] + since_s <= self.now < node.away[1]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            if self.is_away(self.nodes[message.metadata.dst_node_id]):
                ids.append("")
                continue
            self.ids += 1
            name = f"m-{self.ids}"
            message.metadata.__dict__["_message_id"] = name
            self.open[name] = (message, self.now + 0.5, None)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for name in message_ids if name in self.open for reply in self.answer(name)]

    def answer(self, name: str) -> Iterable[Message]:
        message, ready, reply = self.open[name]
        node = self.nodes[message.metadata.dst_node_id]
        if self.is_away(node, since_s=NOTICED_S):
            del self.open[name]
            yield Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason=""), reply_to=message)
        elif not self.is_away(node) and self.now >= ready:
            if reply is None:  # it takes the question, and trains or finds what it has trained
                self.open[name] = (message, *node.takes(decode_task(message.content), self.now))
            else:
                del self.open[name]
                yield Message(encode_reply(reply), reply_to=message)


def run_to_its_end(weather: Weather, folder: Path) -> tuple[State, int]:
    """Drive a run as a supervisor does, a new process after each kill; returns the state and the kills."""
    kills = 0
    while True:
        driven = Coordinator(
            weather,  # type: ignore[arg-type]
            RunTerms("study", "run", ROUNDS, QUORUM, DEADLINE_S),
            initial=np.zeros(LENGTH, np.float32),
            largest_norm=lambda _number: 100.0,
            aggregation=lambda start: UniformMean(start.length),
            checkpoints=Checkpoints(folder),
        )
        try:
            return driven.run(), kills
        except Killed:
            kills += 1


@pytest.mark.guarantee(
    "a round that misses its quorum is asked again while it could make it, before its updates are given up."
)
@pytest.mark.parametrize(("seed", "kills"), [(1, 0), (2, 0), (3, 0), (4, 12), (5, 12), (6, 12)])
def test_no_paid_update_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, kills: int) -> None:
    weather = Weather(seed, kills=kills)
    for module in (asking, coordinator, participants):
        monkeypatch.setattr(module, "time", weather)
    state, killed = run_to_its_end(weather, tmp_path)
    paid = Counter(number for node in weather.nodes.values() for number in node.outbox)
    used = Counter({record["round"]: len(record["accepted"]) for record in state.records})
    assert killed == kills and [record["outcome"] for record in state.records] == ["aggregated"] * ROUNDS
    assert paid == used, f"{sum(paid.values())} paid, {sum(used.values())} used"
    assert max(record["questions"] - len(record["asked"]) for record in state.records) > 0, "the storm was one"
    assert not any(record["rejected"] or record["missing"] for record in state.records)
    expected = np.zeros(LENGTH, np.float32)
    for record in state.records:
        mean = UniformMean(LENGTH)
        for number in reversed(record["accepted"]):
            mean.add(weather.nodes[number].update(record["round"]))
        expected = mean.result(expected)
    assert state.adapter.tobytes() == expected.tobytes(), "each counts once, in whatever order they came"
