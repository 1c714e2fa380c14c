"""A server's run with a secure sum, from the queue to the model card, its process killed between any two writes."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from server import run_process
from server.certificate_authority import public_pem
from server.cli.app import cli
from server.rounds import asking, participants
from server.rounds.checkpoints import Checkpoints
from server.run_process import drive
from server.run_store.store import Store
from server.run_store.values import Node
from server.secure_sum import opening
from server.secure_sum.files import SumFiles
from server.settings import Home
from shared.protocol.fixed_point import as_integers, mean_of
from shared.secure_sum.messages import Dealt, MaskedVector, most_masked_bytes
from shared.study.declaration import Study
from tests.support.killed_between import Killed, killed_after
from tests.support.sum_server import LENGTH, NodesGrid, SumNode

WRITES: list[tuple[Any, tuple[str, ...]]] = [
    (Store, ("record_round", "record_event")),
    (Checkpoints, ("save", "keep_asked")),
    (SumFiles, ("keep",)),
    (run_process, ("export",)),
]


class Driven(NodesGrid):
    """Nodes of this process, in a run that Flower would know."""

    run = SimpleNamespace(run_id=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A server whose Flower is this process, whose model is a few numbers, and whose store knows the nodes."""
    home = Home(tmp_path)
    nodes = [SumNode(f"clinic-{i}", 11 + i, np.full(LENGTH, i + 0.5, np.float32)) for i in range(3)]
    home.config.write_text('hosts = ["127.0.0.1"]\ngrace_s = 0\n')
    for module, name, value in [
        (participants, "POLL_S", 0.001),
        (asking, "FIRST_POLL_S", 0.0005),
        (opening, "LOOK_EVERY_S", 0.0),
        (opening, "SHORTEST_POLL_S", 0.0005),
        (run_process, "Control", lambda _home: SimpleNamespace(wait_until_it_answers=int, nodes=list, close=int)),
        (run_process, "synchronise_nodes", lambda _store, _control: None),
        (run_process, "initial_adapter", lambda _study: np.zeros(LENGTH, np.float32)),
        (run_process, "layout_of", lambda _study: SimpleNamespace(tensors=[("head.weight", (LENGTH,))])),
        (run_process, "norm_bound", lambda *_, **__: 100.0),
        (run_process, "keep_within", lambda *_: lambda _number, adapter: adapter),
        (run_process, "export", lambda _study, _adapter, folder: folder.mkdir(exist_ok=True)),
        (Store, "names", lambda _store: {node.number: node.name for node in nodes}),
        (
            Store,
            "nodes",
            lambda _store: [
                Node(node.name, node.number, public_pem(node.key.public_key()), "2026", "2026", None) for node in nodes
            ],
        ),
        (Store, "enrolled_names", lambda _store: [node.name for node in nodes]),
    ]:
        monkeypatch.setattr(module, name, value)

    @contextmanager
    def driven(_home: Home, *, update_bytes: int) -> Iterator[Driven]:
        assert update_bytes >= max((len(row.message) for node in nodes for row in node.rows.values()), default=0)
        yield Driven(nodes)

    monkeypatch.setattr(run_process, "drive_run", driven)
    home.__dict__["nodes"] = nodes
    yield home


def queue(home: Home, study: Study) -> str:
    for node in vars(home)["nodes"]:
        node.study_sha256, node.roster = study.sha256, None
        node.rows.clear(), node.signed.clear()
    with Store(home.database()) as store:
        return store.create_run(study).id


def masked(make_study: Callable[..., Study], rounds: int = 1) -> Study:
    return make_study(federation={"rounds": rounds, "quorum": 2, "secure_sum": "masked"})


def test_a_kill_between_any_two_writes_of_a_run_costs_nothing(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_process, "write_card", lambda *_, **__: None)
    for writes in itertools.count():
        run = queue(home, masked(make_study))
        with killed_after(writes, WRITES, monkeypatch) as killed:
            with suppress(Killed):
                drive(home, run)
            was_killed = killed()
        if was_killed:
            drive(home, run)
        state = Checkpoints(home.runs / run / "checkpoints").latest(
            study_sha256=masked(make_study).sha256, study_run=run
        )
        total = sum((as_integers(node.update) for node in vars(home)["nodes"]), np.zeros(LENGTH, np.int64))
        assert state is not None and state.adapter.tobytes() == mean_of(total, 3).astype(np.float32).tobytes()
        with Store(home.database()) as store:
            assert store.run(run).state == "finished"
        if not was_killed:
            break
    assert writes > 10


def test_a_finished_run_shows_roster_survivors_and_states_and_its_card_says_whom_it_rests_on(
    home: Home, make_study: Callable[..., Study]
) -> None:
    run = queue(home, masked(make_study, rounds=2))
    drive(home, run)
    shown = CliRunner().invoke(cli, ["show", run, "--json", "--home", str(home.folder)])
    told = json.loads(shown.stdout)["secure_sum"]
    assert list(told["nodes"]) == ["clinic-0", "clinic-1", "clinic-2"] and told["threshold"] == 3
    assert [one["state"] for one in told["rounds"]] == ["opened", "opened"]
    assert told["rounds"][1]["survivors"] == ["clinic-0", "clinic-1", "clinic-2"]
    plain = CliRunner().invoke(cli, ["show", run, "--home", str(home.folder)]).stdout
    assert "Secure sum (masked) of 3 nodes: clinic-0, clinic-1, clinic-2." in plain and "Round 2: opened" in plain
    card = (home.runs / run / "adapter" / "README.md").read_text()
    assert "## Trust" in card and "only with 3 of the 3 organisations" in card


def test_a_roster_whose_event_was_cut_off_is_told_by_the_next_process(
    home: Home, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, record = queue(home, masked(make_study)), Store.record_event

    def killed(store: Store, kind: str, body: dict[str, Any], *, run: str) -> None:
        if kind == "roster":
            raise Killed
        record(store, kind, body, run=run)

    with monkeypatch.context() as cut, pytest.raises(Killed):
        cut.setattr(Store, "record_event", killed)
        drive(home, run)
    drive(home, run)
    shown = CliRunner().invoke(cli, ["show", run, "--json", "--home", str(home.folder)])
    told = json.loads(shown.stdout)["secure_sum"]
    assert len(told["nodes"]) == 3 and [one["state"] for one in told["rounds"]] == ["opened"]


def test_a_reply_of_the_largest_roster_fits_what_the_gateway_lets_through() -> None:
    dealt = tuple(Dealt(bytes(32), bytes(82)) for _ in range(100))
    message = MaskedVector(bytes(32), "x" * 255, bytes(32), dealt, np.zeros(50, np.uint64)).to_bytes()
    assert len(message) <= most_masked_bytes(50) <= len(message) + 2**10
