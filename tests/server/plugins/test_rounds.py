"""Rounds whose updates a plug-in combines: hostile ones, ones that remember, and a secure sum."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import RoundTrainer
from server.aggregation.method import Method, RoundStart, method_for
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import Coordinator, RunTerms
from server.rounds.replies import PlainReplies
from server.rounds.round import RoundRecord
from server.rounds.update_bounds import keep_within, norm_bound
from shared.adapted_model.model import build, initial_adapter, layout_of
from shared.errors import SettingsError
from shared.privacy.adapter_bound import AdapterBound
from shared.protocol.flower_records import decode_task, encode_reply
from shared.protocol.messages import Status, TrainReply, TrainTask, Vector, digest
from shared.study.declaration import Study
from simulations.engines.grid import LocalGrid
from tests.support.in_process_grid import in_process
from tests.support.plugins import EXAMPLE, write_package

EXAMPLES = (EXAMPLE / "fedvault_example.py").read_text()
HUGE = """
import numpy as np

class Huge:
    def __init__(self, length, state): pass
    def add(self, update): pass
    def result(self, current): return np.full(len(current), 3e38, np.float32)
"""
FAILS_ONCE = """
from pathlib import Path

class Fails:
    def __init__(self, length, state): self.rounds, self.updates = state.get("rounds"), []
    def add(self, update): self.updates.append(update)
    def result(self, current):
        if self.rounds is not None and Path(__file__).with_name("fails").exists():
            raise OSError("no")
        return current + sum(self.updates) / len(self.updates)
    def state(self):
        import numpy as np
        return {"rounds": np.ones(1)}
"""


@pytest.fixture
def make_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_study: Any
) -> Callable[..., tuple[Study, Method]]:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(code: str, name: str, target: str, **federation: Any) -> tuple[Study, Method]:
        module = f"rounds_{name.replace('-', '_')}"
        if not (site / f"{module}.py").exists():
            write_package(site, module, code, aggregations=f"{name}={target}")
        study = make_study(federation={"aggregation": name, "rounds": 3, "smallest_declared_size": 10} | federation)
        return study, method_for(study)

    return make


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


def run_of(
    pool: ThreadPoolExecutor, made: tuple[Study, Method], folder: Path, *, sent: list[Vector] | None = None, **more: Any
) -> Coordinator:
    (study, method), start = made, initial_adapter(made[0])

    def node(message: Message, partition: int, _nodes: int) -> Message:
        task = decode_task(message.content)
        if sent is not None:
            sent.append(task.adapter)
        update = np.full(len(start), (partition + 1) * 1e-3, np.float32)
        reply = TrainReply(task.study_sha256, task.study_run, task.round, digest(task.adapter), Status.TRAINED, update)
        return Message(encode_reply(reply), reply_to=message)

    return Coordinator(
        LocalGrid(in_process(pool, node), [1] * 3),
        RunTerms(study.sha256, "run", more.pop("rounds", 3), 2, 20.0),
        initial=start,
        largest_norm=lambda number: norm_bound(study, number, layout_of(study)),
        aggregation=method.start,
        of_mean=method.of_mean,
        checkpoints=Checkpoints(folder),
        **more,
    )


def test_an_adapter_beyond_what_nodes_accept_is_cut_and_nothing_else_is_sent_or_kept(
    pool: ThreadPoolExecutor, make_method: Any, tmp_path: Path
) -> None:
    made, sent = make_method(HUGE, "huge", "Huge"), list[Vector]()
    study, start = made[0], initial_adapter(made[0])
    bound = AdapterBound(study, layout_of(study), start)
    within = keep_within(study, layout_of(study), start)
    state = run_of(pool, made, tmp_path / "run", sent=sent, within=within).run()
    assert [record["outcome"] for record in state.records] == ["aggregated"] * 3
    assert all(bound.admits(number // 3 + 1, adapter) for number, adapter in enumerate(sent))
    assert bound.admits(study.federation.rounds + 1, state.adapter), "the finished one as well"


def test_a_node_refuses_what_a_server_without_bounds_would_send(make_method: Any, make_records: Any) -> None:
    study, method = make_method(HUGE, "huge", "Huge")
    start = initial_adapter(study)
    huge = method.start(RoundStart(1, len(start), {})).result(start)
    node = RoundTrainer(
        study, build(study), make_records(20), declared_size=20, randomness=lambda _round: OsRandomness()
    )
    reply = node.train(TrainTask(study.sha256, "run", 2, huge))
    assert reply.status is Status.REFUSED_ADAPTER and not reply.update.any()


def test_one_that_fails_leaves_the_last_checkpoint_and_the_run_goes_on_from_it(
    pool: ThreadPoolExecutor, make_method: Any, tmp_path: Path
) -> None:
    made, mark = make_method(FAILS_ONCE, "fails", "Fails"), tmp_path / "site" / "fails"
    mark.touch()
    with pytest.raises(SettingsError, match=r"plug-in 'fails' of rounds_fails 1\.0 to return .*, got OSError: no"):
        run_of(pool, made, tmp_path / "run").run()
    study = made[0]
    latest = Checkpoints(tmp_path / "run").latest(study_sha256=study.sha256, study_run="run")
    assert latest is not None and latest.round == 1 and latest.method_state["rounds"].tolist() == [1.0]
    mark.unlink()
    state, other = run_of(pool, made, tmp_path / "run").run(), run_of(pool, made, tmp_path / "never cut").run()
    assert state.adapter.tobytes() == other.adapter.tobytes()


def test_what_it_remembers_outlives_a_crash(pool: ThreadPoolExecutor, make_method: Any, tmp_path: Path) -> None:
    made = make_method(EXAMPLES, "slow-start", "SlowStart")
    run_of(pool, made, tmp_path / "cut", rounds=2).run()
    state, other = run_of(pool, made, tmp_path / "cut").run(), run_of(pool, made, tmp_path / "whole").run()
    assert state.adapter.tobytes() == other.adapter.tobytes() and other.method_state["rounds"].tolist() == [3.0]
    moved = other.adapter.astype(np.float64) - initial_adapter(made[0])
    np.testing.assert_allclose(moved, (0.25 + 0.5 + 0.75) * 2e-3, rtol=1e-3)


def test_beside_a_secure_sum_only_one_that_needs_the_mean_alone_is_taken(make_method: Any) -> None:
    sums = {"secure_sum": "masked", "quorum": 3}
    with pytest.raises(SettingsError, match=r"sums alone beside federation\.secure_sum, got 'trimmed-mean'") as refused:
        make_method(EXAMPLES, "trimmed-mean", "TrimmedMean", **sums)
    assert "needs_only_the_mean" in refused.value.hint
    assert make_method(EXAMPLES, "slow-start", "SlowStart", **sums)[1].of_mean


def test_of_a_secure_sum_it_gets_the_mean(pool: ThreadPoolExecutor, make_method: Any, tmp_path: Path) -> None:
    made = make_method(EXAMPLES, "slow-start", "SlowStart")
    state: State = run_of(pool, made, tmp_path / "run", secure_sum=OpenMean(), rounds=2).run()
    moved = state.adapter.astype(np.float64) - initial_adapter(made[0])
    np.testing.assert_allclose(moved, (0.25 + 0.5) * 2e-3, rtol=1e-3)
    assert state.method_state["rounds"].tolist() == [2.0]


class OpenMean:
    """A secure sum that hides nothing: its mean is added to the adapter, as a real one's is."""

    quorum = 2

    def task(self, task: TrainTask) -> TrainTask:
        return task

    def resumed(self, task: TrainTask) -> None:
        return None

    def replies(self, task: TrainTask) -> PlainReplies:
        self._updates = list[Vector]()
        return PlainReplies(task, self, 100.0)

    def add(self, update: Vector) -> None:
        self._updates.append(update)

    def close(self, task: TrainTask, replies: Any, record: RoundRecord) -> tuple[Vector, RoundRecord]:
        return task.adapter + np.mean(self._updates, axis=0, dtype=np.float32), record
