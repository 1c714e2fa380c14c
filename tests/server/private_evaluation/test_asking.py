"""Evaluations over nodes that may be honest, silent, refusing or lying; and over a server that is killed."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict

from server.aggregation.mean import UniformMean
from server.private_evaluation.asking import PrivateEvaluations
from server.private_evaluation.stored import StoredEvaluations
from server.rounds.checkpoints import Checkpoints
from server.rounds.coordinator import Coordinator, RunTerms
from server.rounds.participants import AllPresent, Participants
from server.run_process import StoreObserver
from server.run_store.evaluations import EvaluationStore
from server.run_store.store import Store
from shared.private_evaluation.cells import STEPS
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.evaluation_records import decode_evaluation, encode_evaluation_reply
from shared.protocol.flower_records import decode_task, encode_reply
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LedgerPosition,
    Status,
    TrainReply,
    digest,
    without_histogram,
)
from shared.study.declaration import Study
from simulations.engines.grid import LocalGrid
from tests.support.in_process_grid import in_process
from tests.support.killed_between import Killed, killed_after

Node = Callable[[Message, EvaluationTask], Message]
ADAPTER = np.ones(3, np.float32)
POSITION = LedgerPosition(7, "a" * 64, "b" * 64)


def counted(task: EvaluationTask, *counts: int) -> EvaluationReply:
    histogram = np.array(counts) * STEPS
    return EvaluationReply(task.study_run, task.number, task.adapter_sha256, Status.EVALUATED, histogram, POSITION)


def reply(message: Message, answer: EvaluationReply) -> Message:
    return Message(encode_evaluation_reply(answer), reply_to=message)


def honest(message: Message, task: EvaluationTask) -> Message:
    return reply(message, counted(task, 80, 20))


def refusing(message: Message, task: EvaluationTask) -> Message:
    return reply(message, without_histogram(task, Status.REFUSED_BUDGET))


def too_many(message: Message, task: EvaluationTask) -> Message:
    return reply(message, counted(task, 80, 20, 3))


def too_large(message: Message, task: EvaluationTask) -> Message:
    return reply(message, replace(counted(task, 80, 20), histogram=np.array([2**62, 2**62])))


def of_another_adapter(message: Message, task: EvaluationTask) -> Message:
    return reply(message, replace(counted(task, 80, 20), adapter_sha256="0" * 64))


def rubbish(message: Message, task: EvaluationTask) -> Message:
    return Message(RecordDict(), reply_to=message)


def erring(message: Message, task: EvaluationTask) -> Message:
    return Message(Error(code=0, reason="out of memory"), reply_to=message)


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Study:
    return make_study(
        evaluation={"epsilon": 1.0, "rounds": [2]}, federation={"rounds": 4, "quorum": 2, "deadline_s": 5.0}
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        yield store


@pytest.fixture
def ask(store: Store, study: Study) -> Iterator[Callable[..., Evaluated]]:
    """Have these nodes evaluate, and return the estimates as they are stored."""
    run = store.create_run(study).id
    with ThreadPoolExecutor(4) as pool:

        def ask(*nodes: Node, after: int = 2, grace_s: float = 1.0, **changes: Any) -> Evaluated:
            def handle(message: Message, partition: int, _nodes: int) -> Message:
                return nodes[partition](message, decode_evaluation(message.content))

            grid = LocalGrid(in_process(pool, handle), [1] * len(nodes))
            storage = StoredEvaluations(store, run, StoreObserver(store, run))
            participants = AllPresent(grid, quorum=2, patience_s=1)
            PrivateEvaluations(grid, study, run, grace_s, storage, **changes).after(participants, after, ADAPTER)
            return Evaluated.model_validate(store.evaluations.of_run(run)[after])

        yield ask


def test_counts_of_all_sites_become_estimates(ask: Callable[..., Evaluated]) -> None:
    evaluated = ask(honest, honest, honest)
    assert (evaluated.number, evaluated.sites, evaluated.without) == (2, ("1", "2", "3"), {})
    accuracy = {one.scope: one for one in evaluated.estimates if one.measure == "accuracy"}
    assert accuracy["all sites"].value == pytest.approx(0.8)


@pytest.mark.guarantee("counts that do not fit the study's cells are not used, whatever a node sends.")
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (refusing, "refused_budget"),
        (too_many, "unreadable"),
        (too_large, "unreadable"),
        (of_another_adapter, "unreadable"),
        (rubbish, "unreadable"),
        (erring, "node-error"),
    ],
)
def test_one_bad_node_is_named_and_left_out(ask: Callable[..., Evaluated], bad: Node, why: str) -> None:
    evaluated = ask(honest, bad, honest)
    assert evaluated.sites == ("1", "3") and evaluated.without == {"2": why}


def test_who_is_silent_is_late(ask: Callable[..., Evaluated]) -> None:
    over = threading.Event()

    def silent(message: Message, task: EvaluationTask) -> Message:
        over.wait()
        return honest(message, task)

    try:
        evaluated = ask(honest, silent, honest, grace_s=0.1)
    finally:
        over.set()
    assert evaluated.sites == ("1", "3") and evaluated.without == {"2": "late"}


def test_if_nobody_counts_there_is_no_estimate_and_the_run_goes_on(ask: Callable[..., Evaluated]) -> None:
    evaluated = ask(refusing, refusing)
    assert evaluated.estimates == () and evaluated.sites == ()


def test_the_adapter_that_is_sent_lies_where_the_next_round_would_send_it(ask: Callable[..., Evaluated]) -> None:
    sent = list[Any]()

    def noting(message: Message, task: EvaluationTask) -> Message:
        sent.append((task.number, task.adapter.tolist()))
        return honest(message, task)

    ask(noting, noting, within=lambda number, adapter: adapter * number)
    assert sent == [(2, [3, 3, 3])] * 2


def test_only_declared_rounds_are_evaluated(ask: Callable[..., Evaluated], store: Store) -> None:
    with pytest.raises(KeyError):
        ask(honest, honest, after=3)
    assert ask(honest, honest, after=4).number == 4, "the end always is"


@pytest.mark.guarantee(
    "a site's answer is durable before anything else happens, and a run that was cut off asks no site for other counts."
)
@pytest.mark.parametrize("writes", range(4))
def test_a_server_that_is_killed_asks_no_node_twice_that_has_answered(
    ask: Callable[..., Evaluated], store: Store, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    asked = list[int]()

    def noting(message: Message, task: EvaluationTask) -> Message:
        asked.append(message.metadata.dst_node_id)
        return honest(message, task)

    (run,) = store.runs()
    points = [(EvaluationStore, ("keep_counts", "finish")), (Store, ("record_event",))]
    with killed_after(writes, points, monkeypatch), pytest.raises(Killed):
        ask(noting, noting)
    answered, before = set(store.evaluations.counts(run.id, 2)), len(asked)
    evaluated = ask(noting, noting)
    assert evaluated.sites == ("1", "2")
    assert not {str(node) for node in asked[before:]} & answered


@pytest.mark.guarantee(
    "a private evaluation is over before the next round begins, also if the server was cut off before it."
)
def test_an_evaluation_stands_between_two_rounds(tmp_path: Path) -> None:
    events = list[Any]()

    def trained(message: Message, partition: int, _nodes: int) -> Message:
        task = decode_task(message.content)
        events.append(("trained", task.round))
        identity = (task.study_sha256, task.study_run, task.round, digest(task.adapter))
        return Message(encode_reply(TrainReply(*identity, Status.TRAINED, ADAPTER)), reply_to=message)

    def evaluated(_participants: Participants, number: int, _adapter: Any) -> None:
        events.append(("evaluated", number))
        if len([kind for kind, _ in events if kind == "evaluated"]) == 3:
            raise Killed

    with ThreadPoolExecutor(1) as pool:
        for attempt in range(2):
            coordinator = Coordinator(
                LocalGrid(in_process(pool, trained), [1]),
                RunTerms("study", "run", rounds=3, quorum=1, deadline_s=20.0),
                initial=ADAPTER,
                largest_norm=lambda _number: 100.0,
                aggregation=lambda start: UniformMean(start.length),
                checkpoints=Checkpoints(tmp_path / "checkpoints"),
                evaluate_privately=evaluated,
            )
            with pytest.raises(Killed) if attempt == 0 else nullcontext():
                coordinator.run()
    cut = [("evaluated", 0), ("trained", 1), ("evaluated", 1), ("trained", 2), ("evaluated", 2)]
    assert events == [*cut, ("evaluated", 2), ("trained", 3), ("evaluated", 3)]


def test_a_question_bears_the_servers_copy_of_the_ledger(ask: Callable[..., Evaluated], store: Store) -> None:
    store.invite("north", "hash", datetime.now(UTC) + timedelta(days=1))
    store.enrol("hash", "key", 1, datetime.now(UTC))
    ask(honest, honest)
    assert store.ledger_position(1) == POSITION
    copies = list[LedgerPosition]()

    def noting(message: Message, task: EvaluationTask) -> Message:
        copies.append(task.server_copy)
        return honest(message, task)

    evaluated = ask(noting, noting, after=4)
    assert POSITION in copies and evaluated.sites == ("2", "north"), "sites by their names"
