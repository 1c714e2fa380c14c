"""Measure what aggregation costs the server: memory at 4 and at 1,000 nodes, time beside one pass over the bytes.

The whole server side of a round runs, from the coordinator over the update filter to the checkpoint; only the nodes
are not there: the grid makes each reply when it is pulled.
"""

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from server.aggregation.mean import UniformMean
from server.rounds.checkpoints import Checkpoints
from server.rounds.coordinator import Coordinator, RunTerms
from server.rounds.update_filter import Accepted, inspect
from shared.protocol.flower_records import decode_task, encode_reply, encode_task
from shared.protocol.messages import Status, TrainReply, TrainTask, Vector
from simulations.benchmarks.measure import Ratio, interleaved, ratio_of
from simulations.benchmarks.memory.peak import in_own_process
from simulations.engines.grid import LocalGrid, with_id

FLOATS = 12_500_000  # 50 MB
FEW, MANY = 4, 1000
MEMORY_TURNS, PASS_TURNS = 3, 21
LARGEST_NORM = 100.0


def rows() -> Iterator[Ratio]:
    """Measure peak memory, the addition alone, and everything that is done with a reply."""
    pairs = []
    for _ in range(MEMORY_TURNS):
        many, few = (in_own_process(aggregate, nodes, FLOATS)[1] for nodes in (MANY, FEW))
        pairs.append((many, few))
    yield ratio_of(
        f"peak memory of a round of {MANY} nodes, 50 MB adapter", f"{FEW} nodes", pairs, unit="MiB", aim="at most 1.1"
    )
    yield from passes(FLOATS)


def aggregate(nodes: int, floats: int) -> list[int]:
    """Aggregate one round of replies that are made as they are pulled; return the accepted nodes."""
    _be_the_server()
    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(
            RepliesWhenPulled(nodes, floats),
            RunTerms("study", "run", 1, nodes, 3600.0),
            initial=np.zeros(floats, np.float32),
            largest_norm=lambda _number: LARGEST_NORM,
            aggregation=lambda start: UniformMean(start.length),
            checkpoints=Checkpoints(Path(folder)),
        )
        accepted: list[int] = coordinator.run().records[0]["accepted"]
    if len(accepted) != nodes:
        raise RuntimeError(f"Expected {nodes} replies to be accepted, got {len(accepted)}.")
    return accepted


def passes(floats: int) -> Iterator[Ratio]:
    """Measure seconds for one reply beside NumPy's addition of the same floats to a float64 sum."""
    _be_the_server()
    update, total, method = _update(floats), np.zeros(floats), UniformMean(floats)
    task = TrainTask("study", "run", 1, np.zeros(floats, np.float32))
    question = Message(encode_task(task), 1, "train")
    reply = Message(encode_reply(_reply(task, update)), reply_to=question)

    def one_pass() -> None:
        np.add(total, update, out=total)

    def take_in() -> None:
        verdict = inspect(reply, task, largest_norm=LARGEST_NORM)
        if not isinstance(verdict, Accepted):
            raise RuntimeError(f"Expected the reply to be accepted, got {verdict}.")
        method.add(verdict.update)

    peer = "np.add to a float64 sum"
    yield interleaved(
        "folding 50 MB into the sum",
        peer,
        ours=lambda: method.add(update),
        theirs=one_pass,
        turns=PASS_TURNS,
        aim="at most 3",
    )
    yield interleaved("reading, filtering and folding 50 MB", peer, ours=take_in, theirs=one_pass, turns=PASS_TURNS)


class RepliesWhenPulled(LocalGrid):
    """A grid without nodes: every reply has bytes of its own, made when the coordinator takes it."""

    def __init__(self, nodes: int, floats: int) -> None:
        super().__init__(_nobody, [1] * nodes)
        self._update = _update(floats)
        self._asked: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep the tasks of a round."""
        self._asked = {message.metadata.message_id: message for message in map(with_id, messages)}
        self._task = decode_task(next(iter(self._asked.values())).content)  # one for all: its digest takes long
        return list(self._asked)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Make one reply after the other."""
        for message_id in message_ids:
            reply = _reply(self._task, self._update)
            yield Message(encode_reply(reply), reply_to=self._asked.pop(message_id))


def _be_the_server() -> None:
    """Give this process the server's identity, which its messages carry."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0


def _nobody(_messages: list[Message], _nodes: int) -> "Future[list[Message]]":
    raise RuntimeError("no client is asked: this grid makes the replies itself")


def _reply(task: TrainTask, update: Vector) -> TrainReply:
    return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)


def _update(floats: int) -> Vector:
    drawn: Vector = np.random.default_rng(0).standard_normal(floats, dtype=np.float32)
    return drawn / np.float32(np.linalg.norm(drawn))
