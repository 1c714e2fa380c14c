"""A run's process may be killed between any two writes, and a run that cannot go on says so."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from sqlalchemy import Engine, create_engine, event, text

from server import run_process
from server.flower.patience import FlowerRefusedError
from server.processes import SupervisedProcesses
from server.rounds import checkpoints, participants
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.round import RoundRecord
from server.run_process import StoreObserver, drive
from server.run_store.store import Store
from server.runs.ends import KILLED, TRIES
from server.settings import Home
from shared.adapted_model.adapters import Layout
from shared.errors import DataError
from shared.protocol.flower_records import decode_offer, decode_task, encode_offer_reply, encode_reply
from shared.protocol.messages import OfferReply, Status, TrainReply, digest
from shared.study.declaration import Study
from simulations.engines.grid import LocalGrid
from tests.support.in_process_grid import in_process
from tests.support.killed_between import Killed, killed_after

LENGTH = 3
WRITES = [
    (Store, ("record_round", "record_event", "record_answer", "set_state")),
    (Checkpoints, ("save", "keep_asked")),
    (run_process, ("export", "write_card")),
]


def handle(message: Message, partition: int, _nodes: int) -> Message:
    """Answer as a node whose operator has approved."""
    if message.metadata.message_type == "query":
        reply = encode_offer_reply(OfferReply(decode_offer(message.content).study_run, Status.APPROVED))
        return Message(reply, reply_to=message)
    task = decode_task(message.content)
    update = np.full(LENGTH, partition + 1, np.float32)
    identity = (task.study_sha256, task.study_run, task.round, digest(task.adapter))
    return Message(encode_reply(TrainReply(*identity, Status.TRAINED, update)), reply_to=message)


class Driven(LocalGrid):
    """Nodes of this process, in a run that Flower would know."""

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A server whose Flower is this process, and whose model is three numbers."""
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\n')
    monkeypatch.setattr(participants, "POLL_S", 0.01)
    control = SimpleNamespace(wait_until_it_answers=lambda: None, nodes=list, close=lambda: None)
    with ThreadPoolExecutor(2) as pool:

        @contextmanager
        def driven(_home: Home, **_limits: int) -> Iterator[Driven]:
            yield Driven(in_process(pool, handle), [1, 1])

        for name, stand_in in {
            "Control": lambda _home: control,
            "drive_run": driven,
            "initial_adapter": lambda _study: np.zeros(LENGTH, np.float32),
            "layout_of": lambda _study: Layout(()),
            "norm_bound": lambda *_, **__: 100.0,
            "keep_within": lambda *_: lambda _number, adapter: adapter,
            "export": lambda _study, _adapter, folder: folder.mkdir(exist_ok=True),
            "write_card": lambda folder, *_, **__: (folder / "README.md").write_text("card"),
        }.items():
            monkeypatch.setattr(run_process, name, stand_in)
        yield home


def queue(home: Home, study: Study) -> str:
    with Store(home.database()) as store:
        return store.create_run(study).id


def state_of(home: Home, run: str) -> tuple[str, str]:
    with Store(home.database()) as store:
        return store.run(run).state, store.run(run).reason


def test_a_kill_between_any_two_writes_is_made_up_for_by_the_next_process(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    for writes in itertools.count():
        run = queue(home, make_study(federation={"rounds": 1, "quorum": 2}))
        with killed_after(writes, WRITES, monkeypatch) as killed:
            with suppress(Killed):
                drive(home, run)
            was_killed = killed()
        if was_killed:
            drive(home, run)
        with Store(home.database()) as store:
            ((record, _evaluation),) = store.rounds(run)
            assert store.run(run).state == "finished" and record["outcome"] == "aggregated"
        assert (home.runs / run / "adapter" / "README.md").exists()
        if not was_killed:
            break
    assert writes > 10


def test_rounds_that_only_the_checkpoint_knows_are_shown_when_the_run_goes_on(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queue(home, make_study(federation={"rounds": 2, "quorum": 2}))
    with killed_after(0, [(Store, ("record_round",))], monkeypatch), suppress(Killed):
        drive(home, run)
    with killed_after(0, [(Checkpoints, ("keep_asked",))], monkeypatch), suppress(Killed):
        drive(home, run)
    with Store(home.database()) as store:
        assert [record["round"] for record, _ in store.rounds(run)] == [1]


@pytest.mark.guarantee("a reply costs one transaction, a round two more, however long the run is.")
def test_the_two_hundredth_round_writes_no_more_than_the_tenth(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = queue(home, make_study(federation={"rounds": 200, "quorum": 2})), Counter[str]()
    after = dict[int, Counter[str]]()

    def count(path: Path, content: bytes) -> None:
        written["bytes"] += len(content)
        path.write_bytes(content)  # 600 times to the disk would last

    class Counting(StoreObserver):
        def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
            super().finished(record, evaluation)
            after[0 if record is None else record.round] = written.copy()

    def statement(_connection: Any, _cursor: Any, text: str, parameters: Any, *_: Any) -> None:
        written["statements"] += 1
        written["bytes"] += 0 if text.startswith("SELECT") else len(repr(parameters))

    monkeypatch.setattr(checkpoints, "write_atomically", count)
    monkeypatch.setattr(run_process, "StoreObserver", Counting)
    listeners: dict[str, Callable[..., None]] = {
        "before_cursor_execute": statement,
        "commit": lambda _connection: written.update(commits=1),
        "connect": lambda connection, _record: connection.execute("PRAGMA synchronous = OFF"),
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        drive(home, run)
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)
    tenth, last = (after[number] - after[number - 1] for number in (10, 200))
    assert last["statements"] == tenth["statements"] and last["commits"] == tenth["commits"] == len((1, 2)) + 2
    assert last["bytes"] < 1.1 * tenth["bytes"], "digits and seconds may be longer"


def damage_checkpoints(home: Home, run: str) -> None:
    folder = home.runs / run / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "round-00001.json").write_text("{")


def damage_study(home: Home, run: str) -> None:
    engine = create_engine(home.database())
    with engine.begin() as connection:
        study = json.loads(connection.execute(text("SELECT study FROM runs")).scalar_one())
        study["federation"]["rounds"] = 7
        connection.execute(text("UPDATE runs SET study = :study"), {"study": json.dumps(study)})
    engine.dispose()


def cut_study(home: Home, run: str) -> None:
    engine = create_engine(home.database())
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET study = substr(study, 1, 100)"))
    engine.dispose()


@pytest.mark.parametrize("damage", [damage_checkpoints, damage_study, cut_study])
def test_a_damaged_run_has_failed_at_once_and_holds_up_nobody(
    damage: Callable[[Home, str], None], home: Home, make_study: Callable[..., Study]
) -> None:
    damaged = queue(home, make_study(federation={"rounds": 1, "quorum": 2}))
    damage(home, damaged)
    other = queue(home, make_study(federation={"rounds": 1, "quorum": 2}))
    with Store(home.database()) as store:
        assert SupervisedProcesses(home, store).wanted()[-1].name == f"run-{damaged}"
        assert len(store.runs()) == 2, "every run can still be listed"
    with pytest.raises(DataError, match="damaged"):
        drive(home, damaged)
    assert state_of(home, damaged)[0] == "failed" and "damaged" in state_of(home, damaged)[1]
    with Store(home.database()) as store:
        assert SupervisedProcesses(home, store).wanted()[-1].name == f"run-{other}"


def test_where_a_run_is_kept_it_has_failed_as_well(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sent = queue(home, make_study(federation={"rounds": 1, "quorum": 2})), list[str]()
    damage_checkpoints(home, run)
    monkeypatch.setattr(run_process, "_sender", lambda home, run: lambda: sent.append(state_of(home, run.id)[0]))
    with pytest.raises(DataError, match="damaged"):
        drive(home, run)
    assert sent == ["failed"]


def test_a_process_that_ends_the_same_way_again_and_again_is_not_tried_for_ever(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tries = queue(home, make_study()), 0

    def crash(_study: Study) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(run_process, "initial_adapter", crash)
    while state_of(home, run)[0] != "failed":
        tries += 1
        with pytest.raises(ValueError, match="a bug"):
            drive(home, run)
        assert tries <= TRIES
    assert state_of(home, run)[1] == f"its process ended {TRIES} times in a row in the same way: ValueError: a bug"


def test_a_run_that_flower_refuses_gives_its_turn_to_the_next(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, other = (queue(home, make_study(federation={"rounds": 1, "quorum": 2})) for _ in range(2))

    @contextmanager
    def refuses(_home: Home, **_limits: int) -> Iterator[Driven]:
        raise FlowerRefusedError("Expected Flower to accept StartRun, got 400")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(run_process, "drive_run", refuses)
        for _ in range(TRIES):
            assert state_of(home, refused)[0] in ("queued", "running")
            with pytest.raises(FlowerRefusedError):
                drive(home, refused)
    assert state_of(home, refused)[0] == "failed" and "StartRun" in state_of(home, refused)[1]
    with Store(home.database()) as store:
        assert SupervisedProcesses(home, store).wanted()[-1].name == f"run-{other}"


def test_a_process_that_is_killed_before_it_begins_lets_others_go_first_and_never_fails(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, states = queue(home, make_study(federation={"rounds": 1, "quorum": 2})), []

    def out_of_memory(_study: Study) -> None:
        states.append(state_of(home, run))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_process, "initial_adapter", out_of_memory)
        for _ in range(2 * TRIES):
            with suppress(Killed):
                drive(home, run)
    assert states == [("running", "")] * TRIES + [("waiting", KILLED)] * TRIES
    drive(home, run)
    assert state_of(home, run) == ("finished", ""), "as soon as there is memory"


def test_a_run_says_what_it_waits_for_and_is_under_way_again_when_it_has_it(
    home: Home, make_study: Callable[..., Study]
) -> None:
    run = queue(home, make_study())
    with Store(home.database()) as store:
        observer = StoreObserver(store, run)
        observer.waits({"approved": [1], "no_answer_yet": [2]}, [], quorum=2)
        assert state_of(home, run) == ("waiting", "waiting for approvals: 1 of 2")
        observer.goes_on()
        assert state_of(home, run) == ("running", "")
        store.want(run, wanted=False)
        observer.waits({}, [1], quorum=2)
        assert store.stop_unwanted() == [run] and state_of(home, run) == ("stopped", "")


def test_a_run_is_not_begun_anew_by_another_studys_checkpoint(home: Home, make_study: Callable[..., Study]) -> None:
    run = queue(home, make_study(federation={"rounds": 1, "quorum": 2}))
    Checkpoints(home.runs / run / "checkpoints").save(State("other", run, 1, np.zeros(LENGTH, np.float32)))
    with suppress(Exception):
        drive(home, run)
    assert state_of(home, run)[0] == "failed"
