"""Power cuts, full disks and kills at every durable step of a round, in every order we could think of.

A fake trainer stands behind the real `ChargedRound` and the real ledger. After every event an independent count of
what was trained and sent is held against what the ledger says was spent.
"""

import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from functools import cache
from itertools import count, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import MOST_LOST
from client.vault.service.charged_round import ChargedRound
from client.vault_api.messages import write_reply
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from shared.protocol.messages import Status, TrainReply, TrainTask
from tests.support.ledgers import register
from tests.support.power import KINDS, Cut, Kind, Power

DELTA, STEPS, ROUNDS = 1e-5, 6, 4
STUDY, ADAPTER = "s" * 64, np.zeros(3, np.float32)
NUMBERS = count()
LONGEST = 24
"""Durable steps of a first round, told below."""
LONGEST_AFTER_A_CRASH = LONGEST + 6
"""The same, where the second copy of height and head is behind and is written when the ledger opens."""


class World:
    """One node's disk, and what the world outside has seen of it.

    Args:
        folder: of the ledger.
        notes: where attempts and answers are written down, for processes that do not come back.
    """

    def __init__(self, folder: Path, notes: Path | None = None) -> None:
        self.folder, self._notes = folder, notes
        self.attempts: list[int] = []
        self.sent: dict[int, bytes] = {}

    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.db", second_copy=self.folder / "second" / "head.json")

    def refusal(self, task: TrainTask) -> Status | None:
        return None if 1 <= task.round <= ROUNDS else Status.REFUSED_STUDY

    release = SubsampledGaussian(1.5, 0.1, STEPS)

    def attempt(self, task: TrainTask, charged: SubsampledGaussian) -> TrainReply:
        assert charged == self.release
        self.attempts.append(task.round)
        self._note(f"trained {task.round}")
        if task.adapter[0] == 1:
            return self.reply(task, Status.FAILED)
        if task.adapter[0] == 2:
            raise Cut
        update = np.frombuffer(os.urandom(12), "<u4").astype(np.float32)
        return TrainReply(STUDY, "run", task.round, task.adapter_sha256, Status.TRAINED, update)

    def reply(self, task: TrainTask, status: Status) -> TrainReply:
        return TrainReply(STUDY, "run", task.round, task.adapter_sha256, status, np.zeros(3, np.float32))

    def ask(self, number: int, outcome: int = 0) -> TrainReply | None:
        """One task, as often as a server likes; None if nothing came back."""
        adapter = ADAPTER + np.float32(outcome)
        try:
            reply = ChargedRound(self, self.ledger, dataset="data").train(TrainTask(STUDY, "run", number, adapter))
        except Cut:
            return None
        if reply.status is Status.TRAINED:
            self._note(f"sent {number} {write_reply(reply).hex()}")
            assert self.sent.setdefault(number, write_reply(reply)) == write_reply(reply), "other bytes were sent"
        else:
            assert not reply.update.any()
            assert number not in self.sent or reply.status is Status.REFUSED_LEDGER, "what was sent was forgotten"
        return reply

    def check(self) -> None:
        """Compare an independent count with the ledger, on a disk that works."""
        assert len(self.attempts) == len(set(self.attempts)), "a round was trained twice"
        with self.ledger() as ledger:
            assert ledger.state.spent("data") >= independent(len(set(self.attempts))) - 1e-12
            assert set(self.attempts) <= set(ledger.state.runs["run"].attempts), "trained and not paid for"
            assert all(ledger.answer("run", number) == sent for number, sent in self.sent.items())
            run = ledger.state.runs["run"]
            without_noise = {n for n, released in run.attempts.items() if released is None} | run.failed
            assert len(run.failed - run.looked_at) <= 1 and len(without_noise - run.looked_at) <= 1 + MOST_LOST
            entered = [number for number, digest in ledger.state.runs["run"].attempts.items() if digest is not None]
            assert None not in [ledger.answer("run", number) for number in entered], "entered before it was kept"

    def _note(self, line: str) -> None:
        if self._notes is not None:
            with self._notes.open("a") as file:
                file.write(f"{line}\n")


@cache
def independent(rounds: int) -> float:
    """Epsilon of so many rounds by themselves."""
    return epsilon_rdp([SubsampledGaussian(1.5, 0.1, STEPS * rounds)], DELTA) if rounds else 0.0


@pytest.fixture(scope="module")
def approved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with one approved run, to be copied."""
    folder = tmp_path_factory.mktemp("approved")
    with World(folder).ledger() as ledger:
        register(ledger, "data", epsilon=9.0, delta=DELTA)
        per_round = SubsampledGaussian(1.5, 0.1, STEPS)
        ledger.approve("data", "run", study_sha256=STUDY, rounds=ROUNDS, per_round=per_round)
    return folder


def fresh(memory: Path, approved: Path) -> World:
    """A world in a place of its own: a cut leaves connections open, and SQLite deletes by name when they are closed."""
    for folder in memory.iterdir():
        shutil.rmtree(folder, ignore_errors=True)
    return World(Path(shutil.copytree(approved, memory / f"node-{next(NUMBERS)}")))


def test_every_kind_of_durable_step_is_counted(
    power: Callable[[Power], None], memory: Path, approved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    honest = Power.step

    def step(self: Power, error: type[Exception] = OSError) -> None:
        import inspect

        caller = inspect.stack()[1]
        seen.append(f"{caller.function}")
        honest(self, error)

    monkeypatch.setattr(Power, "step", step)
    supplied = Power()
    power(supplied)
    assert fresh(memory, approved).ask(1) is not None
    assert {"execute", "renamed", "synced"} == set(seen) and len(seen) == LONGEST
    assert seen.count("execute") == 4, "before and after the two rows of a round"


@pytest.mark.guarantee("what a dataset has spent is on disk before the first noisy step that spends it.")
@pytest.mark.guarantee("nothing that depends on the records leaves before its cost is on disk.")
@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_at_any_step(power: Callable[[Power], None], memory: Path, approved: Path, kind: Kind) -> None:
    for step in range(1, LONGEST + 1):
        world = fresh(memory, approved)
        power(Power(step, kind))
        world.ask(1)
        power(Power())
        world.check()
        again = world.ask(1)
        assert again is not None and again.status in (Status.TRAINED, Status.LOST)
        assert (again.status is Status.TRAINED) == bool(1 in world.sent)
        world.check()


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_two_faults_in_a_row_at_any_two_steps(
    power: Callable[[Power], None], memory: Path, approved: Path, first: Kind, second: Kind
) -> None:
    played = 0
    for one, other in product(range(1, LONGEST, 2), range(1 + KINDS.index(first), LONGEST_AFTER_A_CRASH + 1, 3)):
        world = fresh(memory, approved)
        for fault in (Power(one, first), Power(other, second)):
            power(fault)
            world.ask(1)
        power(Power())
        again = world.ask(1)
        assert again is not None and again.status in (Status.TRAINED, Status.LOST)
        world.check()
        played += 1
    assert played == 12 * 10


events = st.tuples(
    st.integers(1, ROUNDS),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.none() | st.integers(1, LONGEST_AFTER_A_CRASH),
    st.sampled_from(KINDS),
)


@pytest.mark.guarantee("every round of a run is trained at most once; a crash in between leaves it charged and lost.")
@pytest.mark.guarantee(
    "a question that is asked again costs nothing, and gets the same bytes for as long as they are kept."
)
@pytest.mark.guarantee(
    "after one failed or two lost rounds the records' account trains nothing until its operator has looked."
)
@settings(
    max_examples=300,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(events, min_size=2, max_size=6))
def test_any_order_of_tasks_replays_restarts_failures_and_faults(
    power: Callable[[Power], None],
    memory: Path,
    approved: Path,
    events: list[tuple[int, int, int | None, Kind]],
) -> None:
    world = fresh(memory, approved)
    for number, outcome, at, kind in events:
        power(Power(at, kind))
        world.ask(number, outcome)
        power(Power())
        world.check()
    for number in range(1, ROUNDS + 1):
        reply = world.ask(number)
        if reply is not None and reply.status is Status.REFUSED_POLICY:
            with world.ledger() as ledger:
                ledger.resume("run", ledger.state.troubles("data")["run"])
            reply = world.ask(number)
        assert reply is not None and reply.status in (Status.TRAINED, Status.FAILED, Status.LOST)
    world.check()
    with world.ledger() as ledger:
        assert ledger.state.spent("data") == pytest.approx(independent(ROUNDS))


def forked(work: Callable[[], None]) -> int:
    """Run in a process of its own, which ends when the work does; returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it touches nothing that other threads may hold
        child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def after(world: World, notes: Path) -> World:
    """The same disk, and what the process that is gone had written down."""
    for line in notes.read_text().splitlines() if notes.exists() else []:
        what, number, *sent = line.split()
        if what == "trained":
            world.attempts.append(int(number))
        else:
            world.sent[int(number)] = bytes.fromhex(sent[0])
    world.check()
    return world


@pytest.mark.parametrize("step", range(1, LONGEST, 3))
def test_a_process_that_is_killed_at_a_durable_step(
    power: Callable[[Power], None], memory: Path, approved: Path, step: int
) -> None:
    world, notes = fresh(memory, approved), memory / "notes"
    child = World(world.folder, notes)

    def work() -> None:
        power(Power(step, trips=lambda: os.kill(os.getpid(), signal.SIGKILL)))
        child.ask(1)

    os.waitpid(forked(work), 0)
    reply = after(world, notes).ask(1)
    assert reply is not None and reply.status in (Status.TRAINED, Status.LOST)
    world.check()


@pytest.mark.parametrize("seed", range(8))
def test_a_process_that_is_killed_at_any_moment(memory: Path, approved: Path, seed: int) -> None:
    world, notes = fresh(memory, approved), memory / "notes"
    child = World(world.folder, notes)

    def work() -> None:
        for number in range(1, ROUNDS + 1):
            child.ask(number)

    pid = forked(work)
    time.sleep(random.Random(seed).uniform(0.0, 0.08))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    after(world, notes)
    replies = [world.ask(number) for number in range(1, ROUNDS + 1)]
    assert all(reply is not None and reply.status in (Status.TRAINED, Status.LOST) for reply in replies)
    world.check()
