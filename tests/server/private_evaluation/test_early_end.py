"""A run that its evaluations end early, and that hands out the best adapter, also if it is killed on the way."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from server import run_process
from server.export.run_report import run_report
from server.private_evaluation.results import evaluations_of
from server.rounds import participants
from server.run_process import drive
from server.run_store.evaluations import EvaluationStore
from server.run_store.store import Store
from server.settings import Home
from shared.adapted_model.adapters import Layout
from shared.private_evaluation.cells import STEPS
from shared.protocol.evaluation_records import decode_evaluation, encode_evaluation_reply, is_evaluation
from shared.protocol.flower_records import decode_offer, decode_task, encode_offer_reply, encode_reply
from shared.protocol.messages import EvaluationReply, OfferReply, Status, TrainReply
from shared.study.declaration import Study
from simulations.engines.grid import LocalGrid
from tests.support.in_process_grid import in_process
from tests.support.killed_between import Killed, killed_after

LENGTH, ROUNDS = 3, 8
RIGHT = {1: 300, 2: 450, 3: 440, 4: 300}
"""Of 500 units, by the rounds that led to an adapter: nothing improves after the second."""
WRITES = [(EvaluationStore, ("finish",)), (run_process, ("export", "write_card"))]


def handle(message: Message, asked: list[tuple[str, int]]) -> Message:
    """Answer as a node whose operator has approved, and whose model is best after two rounds."""
    if is_evaluation(message.content):
        task = decode_evaluation(message.content)
        asked.append(("evaluate", task.number))
        histogram = np.array([RIGHT[task.number], 500 - RIGHT[task.number]]) * STEPS
        answer = EvaluationReply(task.study_run, task.number, task.adapter_sha256, Status.EVALUATED, histogram)
        return Message(encode_evaluation_reply(answer), reply_to=message)
    if message.metadata.message_type == "query":
        stance = OfferReply(decode_offer(message.content).study_run, Status.APPROVED)
        return Message(encode_offer_reply(stance), reply_to=message)
    task_ = decode_task(message.content)
    asked.append(("train", task_.round))
    ones = np.ones(LENGTH, np.float32)
    reply = TrainReply(task_.study_sha256, task_.study_run, task_.round, task_.adapter_sha256, Status.TRAINED, ones)
    return Message(encode_reply(reply), reply_to=message)


@pytest.fixture
def asked() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]]) -> Iterator[Home]:
    """A server whose Flower is this process, and whose model is three numbers."""
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\n')
    monkeypatch.setattr(participants, "POLL_S", 0.01)
    control = SimpleNamespace(wait_until_it_answers=lambda: None, nodes=list, close=lambda: None)

    class Driven(LocalGrid):
        run = SimpleNamespace(run_id=1)

    with ThreadPoolExecutor(1) as pool:

        @contextmanager
        def driven(_home: Home, **_limits: int) -> Iterator[LocalGrid]:
            yield Driven(in_process(pool, lambda message, _partition, _nodes: handle(message, asked)), [1])

        def export(_study: Study, adapter: Any, folder: Path) -> None:
            folder.mkdir(exist_ok=True)
            np.save(folder / "adapter.npy", adapter)

        for name, stand_in in {
            "Control": lambda _home: control,
            "drive_run": driven,
            "initial_adapter": lambda _study: np.zeros(LENGTH, np.float32),
            "layout_of": lambda _study: Layout(()),
            "norm_bound": lambda *_, **__: 100.0,
            "keep_within": lambda *_: lambda _number, adapter: adapter,
            "export": export,
        }.items():
            monkeypatch.setattr(run_process, name, stand_in)
        yield home


@pytest.fixture
def study(make_study: Callable[..., Study]) -> Study:
    evaluation = {"epsilon": 2.0, "rounds": [1, 2, 3, 4, 6], "keep": "best", "stop_after": 2}
    return make_study(evaluation=evaluation, federation={"rounds": ROUNDS, "quorum": 1})


@pytest.mark.guarantee(
    "a run ends early by evaluations that are durable alone, so also if it is cut off before it ends."
)
@pytest.mark.parametrize("writes", [3, 4, 5], ids=["before it is over", "before the decision", "before the card"])
def test_a_kill_around_the_decision_changes_neither_the_end_nor_the_choice(
    home: Home, study: Study, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]], writes: int
) -> None:
    with Store(home.database()) as store:
        run = store.create_run(study).id
    with killed_after(writes, WRITES, monkeypatch), pytest.raises(Killed):
        drive(home, run)
    drive(home, run)
    assert max(number for _what, number in asked) == 4, "no node is asked, and none pays, for a later round"
    with Store(home.database()) as store:
        finished = store.run(run)
        assert (finished.state, finished.round) == ("finished", 4)
        choice = evaluations_of(store, finished).choice
    assert choice is not None and (choice.best, choice.compared) == (2, (1, 2, 3, 4)) and choice.ends_after(4)
    assert np.load(home.runs / run / "adapter" / "adapter.npy").tolist() == [2, 2, 2]


def test_card_report_and_show_say_which_adapter_it_is(home: Home, study: Study) -> None:
    with Store(home.database()) as store:
        run = store.create_run(study).id
        drive(home, run)
        report = run_report(store, store.run(run), home.runs / run / "adapter")
    assert report.run.state == "ended early" and report.further.choice is not None
    assert report.further.evaluation is not None and report.further.evaluation.number == 2
    assert report.answer is not None and report.answer.quality.low == report.further.choice.low
    card = (home.runs / run / "adapter" / "README.md").read_text()
    assert "1 organisations in 2 rounds" in card and "The adapter after round 2 is handed out." in card
    assert "is rather too high" in card and "The run ended there after 2." in card
