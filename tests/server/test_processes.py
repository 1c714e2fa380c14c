"""Which processes should run, and when Flower's database is started afresh."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.processes import RUN_LOGS, SupervisedProcesses, flower_bytes
from server.run_store.store import Store
from server.settings import Home
from shared.study.declaration import Study


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as opened:
        yield opened


def test_flowers_database_is_started_afresh_between_runs_and_never_during_one(
    tmp_path: Path, store: Store, make_study: Callable[..., Study]
) -> None:
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\nflower_database_limit_bytes = 1048576\n')
    home.flower.mkdir()
    processes = SupervisedProcesses(home, store)

    def names() -> list[str]:
        return [child.name.split("-")[0] for child in processes.wanted()]

    assert names() == ["superlink", "gateway"]
    (home.flower / "state.db").write_bytes(bytes(2**21))
    run: Any = store.create_run(make_study())
    assert names() == ["superlink", "gateway", "run"] and flower_bytes(home) == 2**21
    store.want(run.id, wanted=False)
    assert names() == ["gateway"], "the SuperLink is stopped before its files go"
    assert flower_bytes(home) == 2**21
    assert names() == ["superlink", "gateway"] and flower_bytes(home) == 0


def test_a_run_that_is_queued_while_the_superlink_stops_keeps_flowers_database(
    tmp_path: Path, store: Store, make_study: Callable[..., Study]
) -> None:
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\nflower_database_limit_bytes = 1048576\n')
    home.flower.mkdir()
    (home.flower / "state.db").write_bytes(bytes(2**21))
    processes = SupervisedProcesses(home, store)
    assert len(processes.wanted()) == 1, "the SuperLink is being stopped"
    run = store.create_run(make_study())
    assert len(processes.wanted()) == 3
    store.want(run.id, wanted=False)
    assert [child.name for child in processes.wanted()] == ["gateway"], "stopped again first, the run had started it"
    assert flower_bytes(home) == 2**21


def test_the_page_for_other_machines_runs_only_if_the_settings_open_it(tmp_path: Path, store: Store) -> None:
    home = Home(tmp_path)
    home.flower.mkdir()
    for line, also in {"": [], "operators = false\n": [], "operators = true\n": ["page"]}.items():
        home.config.write_text(f'hosts = ["127.0.0.1"]\nflower_database_limit_bytes = 1048576\n{line}')
        processes = SupervisedProcesses(home, store)
        assert [child.name for child in processes.wanted()] == ["superlink", "gateway", *also]
        (home.flower / "state.db").write_bytes(bytes(2**21))
        assert [child.name for child in processes.wanted()] == ["gateway", *also]
        (home.flower / "state.db").unlink()


def test_logs_of_the_latest_runs_are_kept_and_older_ones_go(
    tmp_path: Path, store: Store, make_study: Callable[..., Study]
) -> None:
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\n')
    home.logs.mkdir()
    run = store.create_run(make_study()).id
    for age, name in enumerate(["gateway.log", f"run-{run}.log", *(f"run-r-{n}.log" for n in range(30))]):
        (home.logs / name).write_text(name)
        os.utime(home.logs / name, (1e9 - age, 1e9 - age))
    (home.logs / "run-r-29.log.1").write_text("older lines of a run that was written to last long ago")
    os.utime(home.logs / "run-r-29.log.1", (1.0, 1.0))
    SupervisedProcesses(home, store).wanted()
    left = {path.name for path in home.logs.iterdir()}
    assert left == {"gateway.log", f"run-{run}.log", *(f"run-r-{n}.log" for n in range(RUN_LOGS - 1))}


def test_a_limit_below_an_empty_database_is_said_and_does_not_stop_the_superlink_for_ever(
    tmp_path: Path, store: Store, make_study: Callable[..., Study], caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\nflower_database_limit_bytes = 1048576\n')
    home.flower.mkdir()
    processes = SupervisedProcesses(home, store)

    def ticks() -> int:
        """Let the supervisor look ten times; an empty database is there whenever the SuperLink runs."""
        superlinks = 0
        for _ in range(10):
            if "superlink" in [child.name for child in processes.wanted()]:
                (home.flower / "state.db").write_bytes(bytes(2**21))
                superlinks += 1
        return superlinks

    assert ticks() == 9 and ticks() == 10, "started afresh once"
    assert [
        "flower_database_limit_bytes=1048576 is less" in record.message
        for record in caplog.records
        if record.levelno == logging.WARNING
    ] == [True]
    store.want(store.create_run(make_study()).id, wanted=True)
    processes.wanted()
    store.want(store.runs()[0].id, wanted=False)
    assert ticks() == 9, "and once after each run"
