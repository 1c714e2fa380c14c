"""Rounds over a grid whose nodes may be honest, silent, hostile or dead."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message

from server.aggregation.mean import UniformMean
from server.aggregation.method import RoundStart
from server.rounds.asking import NoLedgerCopies
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import Coordinator, RunTerms
from server.rounds.participants import AllPresent
from server.rounds.round import MOST_ASKS, Round
from server.rounds.update_bounds import NoiseFloor
from shared.errors import RunError, SettingsError
from shared.protocol.flower_records import decode_reply, decode_task, encode_reply
from shared.protocol.messages import LedgerPosition, Status, TrainReply, TrainTask, Vector, digest
from simulations.engines.grid import LocalGrid
from simulations.progress import SilentProgress
from tests.support.in_process_grid import in_process

LENGTH = 3
Node = Callable[[Message, TrainTask, int], Message]


def answer(message: Message, task: TrainTask, update: Any, status: Status = Status.TRAINED) -> Message:
    packed = np.asarray(update, np.float32)
    reply = TrainReply(task.study_sha256, task.study_run, task.round, digest(task.adapter), status, packed)
    return Message(encode_reply(reply), reply_to=message)


def honest(message: Message, task: TrainTask, number: int) -> Message:
    return answer(message, task, np.full(LENGTH, number + task.round / 3))


def with_nan(message: Message, task: TrainTask, number: int) -> Message:
    return answer(message, task, np.full(LENGTH, np.nan))


def too_long(message: Message, task: TrainTask, number: int) -> Message:
    return answer(message, task, np.ones(LENGTH + 1))


def refusing(message: Message, task: TrainTask, number: int) -> Message:
    return answer(message, task, np.zeros(LENGTH), Status.REFUSED_SIZE)


def erring(message: Message, task: TrainTask, number: int) -> Message:
    return Message(Error(code=0, reason="out of memory"), reply_to=message)


def dying(message: Message, task: TrainTask, number: int) -> Message:
    raise OSError("gone")


def slow(message: Message, task: TrainTask, number: int) -> Message:
    time.sleep(1.2)
    return honest(message, task, number)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def grid_of(pool: ThreadPoolExecutor, nodes: list[Node]) -> LocalGrid:
    def handle(message: Message, partition: int, _nodes: int) -> Message:
        return nodes[partition](message, decode_task(message.content), partition + 1)

    return LocalGrid(in_process(pool, handle), [1] * len(nodes))


def coordinator(grid: Any, folder: Path, *, within: Any = lambda _number, sent: sent, **changes: Any) -> Coordinator:
    terms = {"rounds": 3, "quorum": 2, "deadline_s": 20.0} | changes
    return Coordinator(
        grid,
        RunTerms("study", "run", **terms),
        initial=np.zeros(LENGTH, np.float32),
        largest_norm=lambda _number: 100.0,
        aggregation=lambda start: UniformMean(start.length),
        checkpoints=Checkpoints(folder),
        evaluate=lambda number, adapter: {"sum": float(adapter.sum()), "round": number},
        within=within,
    )


def test_the_mean_of_honest_updates_is_added_every_round(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    state = coordinator(grid_of(pool, [honest] * 3), tmp_path).run()
    np.testing.assert_allclose(state.adapter, np.full(LENGTH, 3 * 2 + (1 + 2 + 3) / 3), rtol=1e-6)
    assert [r["accepted"] for r in state.records] == [[1, 2, 3]] * 3
    assert set(state.evaluations) == {"0", "1", "2", "3"}
    assert state.records[0]["bytes_up_per_node"] >= 4 * LENGTH


def test_an_adapter_is_cut_back_before_it_is_sent(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    sent = dict[int, list[float]]()

    def noting(message: Message, task: TrainTask, number: int) -> Message:
        sent[task.round] = task.adapter.tolist()
        return answer(message, task, [task.round, 10.0, 0.5])

    state = coordinator(
        grid_of(pool, [noting] * 2), tmp_path, within=lambda number, adapter: adapter.clip(max=number)
    ).run()
    assert sent == {1: [0, 0, 0], 2: [1, 2, 0.5], 3: [3, 3, 1]}
    assert all(record["outcome"] == "aggregated" for record in state.records), "replies name what was sent"


@pytest.mark.parametrize(
    ("bad", "where", "entry"),
    [
        (with_nan, "rejected", {"node": 2, "reason": "not-finite"}),
        (too_long, "rejected", {"node": 2, "reason": "shape"}),
        (erring, "rejected", {"node": 2, "reason": "node-error"}),
        (dying, "rejected", {"node": 2, "reason": "node-error"}),
        (refusing, "refused", {"node": 2, "status": "refused_size"}),
    ],
)
def test_one_bad_node_costs_the_round_nothing_else(
    pool: ThreadPoolExecutor, tmp_path: Path, bad: Node, where: str, entry: dict[str, Any]
) -> None:
    state = coordinator(grid_of(pool, [honest, bad, honest]), tmp_path, rounds=1).run()
    assert state.records[0][where] == [entry] and state.records[0]["accepted"] == [1, 3]
    np.testing.assert_allclose(state.adapter, np.full(LENGTH, 2 + 1 / 3), rtol=1e-6)


def test_who_is_silent_at_the_deadline_is_missing(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    state = coordinator(grid_of(pool, [honest, slow, honest]), tmp_path, rounds=1, deadline_s=0.6).run()
    assert state.records[0]["missing"] == [2] and state.records[0]["outcome"] == "aggregated"


def test_one_silent_node_costs_two_rounds_their_grace_and_the_next_nothing(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    started = time.monotonic()
    nodes = [honest, slow, honest]
    state = coordinator(grid_of(pool, nodes), tmp_path, rounds=3, quorum=2, deadline_s=600.0, grace_s=0.2).run()
    assert time.monotonic() - started < 1.2 and {record["outcome"] for record in state.records} == {"aggregated"}
    assert [record["asked"] for record in state.records] == [[1, 2, 3], [1, 2, 3], [1, 3]], "it pays for two rounds"
    assert [record["missing"] for record in state.records] == [[2], [2], []]
    np.testing.assert_allclose(state.adapter, np.full(LENGTH, 3 * 2 + (1 + 2 + 3) / 3), rtol=1e-6)


def test_a_silent_node_is_asked_where_the_quorum_cannot_do_without_it(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    nodes = [honest, silent_at_first(2), refusing_from(3)]
    state = coordinator(grid_of(pool, nodes), tmp_path, rounds=3, quorum=2, deadline_s=600.0, grace_s=0.1).run()
    assert state.records[2]["accepted"] == [1, 2] and state.records[2]["outcome"] == "aggregated"


def test_below_the_quorum_the_adapter_stays_as_it_was(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    state = coordinator(grid_of(pool, [honest, with_nan, refusing]), tmp_path).run()
    assert [r["outcome"] for r in state.records] == ["lost"] * 3
    assert not state.adapter.any()


def silent_at_first(times: int) -> Node:
    """Answers nothing to so many questions: the reply comes long after everybody has gone."""
    questions = itertools.count(1)

    def node(message: Message, task: TrainTask, number: int) -> Message:
        if next(questions) <= times:
            time.sleep(1.2)
        return honest(message, task, number)

    return node


def refusing_from(first: int) -> Node:
    """Answers honestly before a round, and refuses from it on."""
    return lambda message, task, number: (honest if task.round < first else refusing)(message, task, number)


def test_who_is_silent_is_asked_again_for_the_same_round(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    state = coordinator(grid_of(pool, [honest, silent_at_first(1)]), tmp_path, rounds=1, deadline_s=0.3).run()
    (record,) = state.records
    assert (record["outcome"], record["asks"], record["questions"]) == ("aggregated", 2, 3)
    assert record["accepted"] == [1, 2] and not record["rejected"]


def test_a_late_reply_counts_and_the_same_bytes_again_are_no_second_one(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    state = coordinator(grid_of(pool, [honest, slow]), tmp_path, rounds=1, deadline_s=0.5).run()
    (record,) = state.records
    assert record["accepted"] == [1, 2] and record["asks"] > 1 and not record["rejected"]
    np.testing.assert_allclose(state.adapter, np.full(LENGTH, 1.5 + 1 / 3), rtol=1e-6)


@pytest.mark.guarantee("whom a round asks is durable before the message leaves.")
def test_whom_a_round_asks_is_on_disk_before_the_message_leaves(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    asked: list[bool] = []

    def looking(node: Node) -> Node:
        def look(message: Message, task: TrainTask, number: int) -> Message:
            asked.append(number in Checkpoints(tmp_path).asked(task.round).nodes)
            return node(message, task, number)

        return look

    nodes = [looking(honest), looking(refusing), looking(honest)]
    driven = coordinator(grid_of(pool, nodes), tmp_path, rounds=2, cohort=2)
    driven.run()
    assert len(asked) >= 4 and all(asked)


def test_a_round_counts_its_asks_on_after_a_crash_and_is_lost_with_the_tenth(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    Checkpoints(tmp_path).keep_asked(1, [1, 2], missed=MOST_ASKS - 1)
    state = coordinator(grid_of(pool, [honest, slow]), tmp_path, rounds=1, deadline_s=0.3).run()
    (record,) = state.records
    assert (record["outcome"], record["asks"], record["missing"]) == ("lost", MOST_ASKS, [2])
    assert not state.adapter.any() and Checkpoints(tmp_path).asked(1) == ([1, 2], MOST_ASKS - 1)


def test_too_few_nodes_is_an_error_that_can_be_resumed(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least 2 nodes, got 1"):
        coordinator(grid_of(pool, [honest]), tmp_path, deadline_s=0.1).run()
    assert coordinator(grid_of(pool, [honest] * 2), tmp_path).run().round == 3


class Doubling(LocalGrid):
    """Delivers every reply twice, and one that nobody asked for."""

    def pull_messages(self, message_ids: Any) -> Any:
        replies = list(super().pull_messages(message_ids))
        return replies + replies


def test_a_second_answer_is_rejected(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    grid = grid_of(pool, [honest, slow])
    doubling = Doubling(grid._submit, [1, 1])
    state = coordinator(doubling, tmp_path, rounds=1).run()
    assert state.records[0]["accepted"] == [1, 2]
    assert {"duplicate", "stranger"} & {entry["reason"] for entry in state.records[0]["rejected"]}
    np.testing.assert_allclose(state.adapter, np.full(LENGTH, 1.5 + 1 / 3), rtol=1e-6)


def test_order_of_arrival_changes_no_bit(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    def late(delay: float) -> Node:
        def node(message: Message, task: TrainTask, number: int) -> Message:
            time.sleep(delay)
            return answer(message, task, np.random.default_rng([number, task.round]).standard_normal(LENGTH))

        return node

    orders = ([0.0, 0.05, 0.1], [0.1, 0.05, 0.0])
    states = [
        coordinator(grid_of(pool, [late(delay) for delay in order]), tmp_path / str(i)).run()
        for i, order in enumerate(orders)
    ]
    assert states[0].adapter.tobytes() == states[1].adapter.tobytes()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_cut_in_any_round_ends_with_the_same_bytes(pool: ThreadPoolExecutor, tmp_path: Path, stop: int) -> None:
    uncut = coordinator(grid_of(pool, [honest] * 3), tmp_path / "whole").run()

    class Cut(LocalGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            replies = list(super().pull_messages(message_ids))
            if any(decode_task(self.asked.content).round == stop for _ in replies):
                raise KeyboardInterrupt
            return replies

        def push_messages(self, messages: Any) -> Any:
            messages = list(messages)
            self.asked = messages[0]
            return super().push_messages(messages)

    with pytest.raises(KeyboardInterrupt):
        coordinator(Cut(grid_of(pool, [honest] * 3)._submit, [1] * 3), tmp_path / "cut").run()
    resumed = coordinator(grid_of(pool, [honest] * 3), tmp_path / "cut").run()
    assert resumed.adapter.tobytes() == uncut.adapter.tobytes()
    assert [r["round"] for r in resumed.records] == [1, 2, 3] and resumed.evaluations == uncut.evaluations


def test_every_answer_that_was_paid_for_moves_the_servers_copy_of_the_ledger(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    mark, seen = LedgerPosition(5, "a" * 64), list[tuple[int, LedgerPosition]]()

    def paid(update: float, status: Status = Status.TRAINED) -> Node:
        def node(message: Message, task: TrainTask, number: int) -> Message:
            reply = decode_reply(answer(message, task, np.full(LENGTH, update), status).content)
            return Message(encode_reply(replace(reply, ledger=mark)), reply_to=message)

        return node

    class LedgerCopies(NoLedgerCopies):
        def save_ledger_position(self, node: int, position: LedgerPosition) -> None:
            seen.append((node, position))

    driven = coordinator(grid_of(pool, [paid(1.0), paid(0.0, Status.FAILED), paid(1e6), refusing]), tmp_path, rounds=1)
    driven._ledger_copies = LedgerCopies()
    driven.run()
    assert sorted(seen) == [(1, mark), (2, mark), (3, mark)], "one that failed and one that was rejected as well"


def test_whoever_watches_hears_who_is_asked_and_who_says_what(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    events: list[Any] = []

    class Watching(SilentProgress):
        def asks(self, number: int, nodes: Any, *, again: Any = (), ask: int = 1) -> None:
            events.append((number, list(nodes)))

        def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
            events.append((node, verdict))

    watched = coordinator(grid_of(pool, [honest, with_nan, refusing]), tmp_path, rounds=1)
    watched._observer = Watching()
    watched.run()
    assert events[0] == (1, [1, 2, 3])
    assert sorted(events[1:]) == [(1, "accepted"), (2, "not-finite"), (3, "refused_size")]


@pytest.mark.guarantee("a checkpoint is durable before the next round's first message leaves.")
def test_checkpoint_is_on_disk_before_any_message_of_the_next_round(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    states: list[tuple[int, State | None]] = []

    def looking(message: Message, task: TrainTask, number: int) -> Message:
        states.append((task.round, Checkpoints(tmp_path).latest(study_sha256="study", study_run="run")))
        return honest(message, task, number)

    coordinator(grid_of(pool, [looking] * 2), tmp_path).run()
    assert len(states) == 6
    assert all(state is not None and state.round == number - 1 for number, state in states)


def test_a_round_needs_someone_to_ask() -> None:
    with pytest.raises(SettingsError, match="at least one node"):
        Round(1, 1, 20.0).begin([], 0.0)


class Velocity(UniformMean):
    """Adds half of its last step to the mean."""

    def __init__(self, start: RoundStart) -> None:
        super().__init__(start.length)
        self._before = start.state.get("step", np.zeros(start.length))

    def result(self, current: Vector) -> Vector:
        step = super().result(current) - current.astype(np.float64) + self._before / 2
        self.state = {"step": step}
        return (current + step).astype(np.float32)


def test_what_a_method_keeps_outlives_the_server(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    def run(folder: Path, rounds: int) -> State:
        one = coordinator(grid_of(pool, [honest] * 3), folder, rounds=rounds)
        one._aggregation = Velocity
        return one.run()

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    resumed = run(tmp_path / "cut", 3)
    assert resumed.adapter.tolist() == whole.adapter.tolist() != run(tmp_path / "one", 1).adapter.tolist()
    assert resumed.method_state["step"].tolist() == whole.method_state["step"].tolist()


def test_a_node_that_is_too_quiet_is_named_and_its_update_counts(
    pool: ThreadPoolExecutor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def whispering(message: Message, task: TrainTask, number: int) -> Message:
        return answer(message, task, np.full(LENGTH, 0.01))

    asked = set[tuple[int, int]]()

    def floors(number: int, size: int) -> NoiseFloor:
        asked.add((number, size))
        return NoiseFloor({"head": 1.0}, {"head": [slice(0, LENGTH)]})

    grid = grid_of(pool, [honest, whispering, whispering])
    one = coordinator(grid, tmp_path, rounds=2)
    one._floors = floors
    one._participants = AllPresent(grid, quorum=2, patience_s=20.0, declared_sizes={1: 100, 2: 200})
    state = one.run()
    assert [record["quiet"] for record in state.records] == [[2], [2]], "of node 3 no size is known"
    assert asked == {(number, size) for number in (1, 2) for size in (100, 200)}
    assert state.records[0]["accepted"] == [1, 2, 3] and "the update of node 2 is quieter" in caplog.text
    assert "quiet" not in coordinator(grid, tmp_path / "other").run().records[0]
