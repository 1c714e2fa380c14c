"""Rounds of a simulated secure sum: lost where the federation loses them, and else with its bytes."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
from flwr.app import Message

from client.answer import answer_task
from server.aggregation.mean import UniformMean
from server.aggregation.opened_sum import next_adapter
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import Coordinator, RunTerms
from server.secure_sum.step import Step, SumRefused
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.protocol.update_encoding import Encoding
from simulations.engines.grid import LocalGrid, partition_of
from simulations.sites.open_sum import OpenRounds

LENGTH, NODES, THRESHOLD = 5, 4, 3


class Summand:
    """A site that adds its own number, but for the rounds that it fails."""

    def __init__(self, number: int, fails: tuple[int, ...] = ()) -> None:
        self.value, self._fails = np.full(LENGTH, 1000 * number, np.int64), fails

    def train(self, task: TrainTask) -> TrainReply:
        status = Status.FAILED if task.round in self._fails else Status.TRAINED
        answer = (task.study_sha256, task.study_run, task.round, task.adapter_sha256, status, self.value)
        return TrainReply(*answer, encoding=Encoding("int64"))  # type: ignore[arg-type]


def driven(folder: Path, sites: list[Summand], step: Step) -> State:
    def submit(messages: list[Message], _nodes: int) -> "Future[list[Message]]":
        answered: Future[list[Message]] = Future()
        answered.set_result([_answered(message, sites[partition_of(message)]) for message in messages])
        return answered

    return Coordinator(
        LocalGrid(submit, [1] * len(sites)),
        RunTerms("s" * 64, "federated", 3, 2, 5.0, "int64"),
        initial=np.zeros(LENGTH, np.float32),
        largest_norm=lambda _number: float("inf"),
        aggregation=lambda start: UniformMean(start.length),
        checkpoints=Checkpoints(folder),
        secure_sum=OpenRounds(step, THRESHOLD),
    ).run()


def _answered(message: Message, site: Summand) -> Message:
    return Message(answer_task(message.content, lambda _task: site), reply_to=message)


def summed(number: int, total: np.ndarray, nodes: int, current: np.ndarray) -> np.ndarray:
    del number
    return next_adapter(current, total, nodes, None)


def test_a_round_of_fewer_sites_than_the_threshold_is_lost_and_changes_no_adapter(tmp_path: Path) -> None:
    """The study's quorum of two would make a round of the two that are left."""
    sites = [Summand(1), Summand(2), Summand(3, fails=(2,)), Summand(4, fails=(2, 3))]
    state = driven(tmp_path, sites, summed)
    assert [record["outcome"] for record in state.records] == ["aggregated", "lost", "aggregated"]
    first = next_adapter(np.zeros(LENGTH, np.float32), sum(site.value for site in sites), 4, None)
    last = next_adapter(first, sum(site.value for site in sites[:3]), 3, None)
    assert state.adapter.tobytes() == last.tobytes()


def test_a_sum_that_the_server_would_not_use_is_not_used(tmp_path: Path) -> None:
    def refuses(number: int, total: np.ndarray, nodes: int, current: np.ndarray) -> np.ndarray:
        if number == 2:
            raise SumRefused("too little noise")
        return summed(number, total, nodes, current)

    state = driven(tmp_path, [Summand(number) for number in range(NODES)], refuses)
    assert [record["outcome"] for record in state.records] == ["aggregated", "lost", "aggregated"]
