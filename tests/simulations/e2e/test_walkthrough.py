"""`make federation` without its processes: what it says, what it refuses, and what it takes away."""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import click
import psutil
import pytest
import typer

from client.cli import cli as node_cli
from client.policy import DatasetPolicy
from server.cli.app import cli as server_cli
from shared.errors import RunError, SettingsError
from shared.section import Section
from shared.study.declaration import load_study
from shared.study.parsing import parse
from simulations.e2e import walkthrough
from simulations.e2e.federation import Federation, Impatience, wait_until
from simulations.e2e.walkthrough_text import guide
from tests.support.paths import ROOT

QUEUED = {"state": "queued", "round": 0, "rounds": 4}
PROGRAMS = {"fedvault-node": node_cli, "fedvault-server": server_cli}


def lines_of(state: dict[str, object]) -> list[str]:
    return guide(Path("runs/federation"), walkthrough.NODES, "r-1", state, ("127.0.0.1", 8443))


def test_every_line_to_type_is_a_command_and_they_lead_from_decision_to_export() -> None:
    typed = [line.strip() for line in lines_of(QUEUED) if line.strip().startswith(".venv/bin/")]
    for line in typed:
        program, name, *arguments = shlex.split(line)
        group = typer.main.get_command(PROGRAMS[Path(program).name])
        assert isinstance(group, click.Group)
        command = group.get_command(click.Context(group), name)
        assert command is not None
        command.make_context(name, arguments)
    names = [line.split()[1] for line in typed]
    assert names == ["show", "doctor", "approve", "status", "status", "ledger", "show", "export"]


def test_it_says_where_everything_is_whom_it_waits_for_and_how_it_ends() -> None:
    said = "\n".join(lines_of(QUEUED))
    for word in ("runs/federation/server", "127.0.0.1:8443", "runs/federation/movies   your node"):
        assert word in said
    assert "It waits for 'movies': for you." in said and "make federation-down" in said
    finished = "\n".join(lines_of({"state": "finished", "round": 4, "rounds": 4}))
    assert "It is finished, after 4 of 4 rounds." in finished


def test_the_nodes_policy_and_the_study_fit_and_every_purpose_is_stated() -> None:
    class Only(Section):
        datasets: dict[str, DatasetPolicy]

    text = (
        f"[datasets.ward]\nsource = 'records.csv'\n{walkthrough.policy(walkthrough.ROWS).partition('[performance]')[0]}"
    )
    import tomllib

    policy = parse(Only, tomllib.loads(text), where="node.toml").datasets["ward"]
    study = load_study(walkthrough.STUDY)
    assert study.study.unstated == () and len(policy.study_must_state) == 5
    assert study.federation.quorum == len(walkthrough.NODES) >= policy.smallest_cohort
    assert study.privacy.epsilon <= (policy.epsilon_per_study or 0) < policy.epsilon
    assert policy.declared_size >= study.federation.smallest_declared_size


def test_a_folder_of_somebody_else_is_neither_filled_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for command in (walkthrough.down, walkthrough.up):
        with pytest.raises(SettingsError, match="holds something else"):
            command(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_port_that_is_taken_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
        with pytest.raises(RunError, match=f"Expected a free port, got port={port}") as refused:
            walkthrough.up(tmp_path / "federation", port)
    assert "make federation" in refused.value.hint
    assert {path.name for path in (tmp_path / "federation").iterdir()} == {"lock"}


def test_two_at_once_do_not_work_on_one_folder(tmp_path: Path) -> None:
    with (
        walkthrough._locked(tmp_path),
        pytest.raises(RunError, match="another make federation"),
        walkthrough._locked(tmp_path),
    ):
        pass


def test_nothing_is_there_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walkthrough.down(tmp_path / "none")
    assert "Nothing to stop" in capsys.readouterr().out


def test_a_process_that_dies_again_and_again_ends_the_waiting_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "server" / "logs"
    logs.mkdir(parents=True)
    (logs / "superlink.log").write_text("starting\nport 9 is taken\n")
    dying = {"pid": 1, "processes": {"superlink": {"pid": None, "failures": walkthrough.TRIES}}}
    monkeypatch.setattr(walkthrough, "read_state", lambda place: dying)
    with pytest.raises(Impatience, match=r"superlink of server ended 3 times: port 9 is taken"):
        walkthrough._await(Federation(tmp_path), lambda: False, "the server answers", 5.0)


def test_taking_it_down_ends_our_processes_alone_and_says_so_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "federation"
    folder.mkdir()
    (folder / walkthrough.MARK).write_text(json.dumps({"ready": False}))
    sleep = "import time; time.sleep(300)"
    for package in ("server", "editor"):
        (tmp_path / f"{package}.py").write_text(sleep)
    place = f"{folder}/server/server.toml"
    ours, other = (
        subprocess.Popen([sys.executable, "-m", package, place], cwd=tmp_path) for package in ("server", "editor")
    )
    try:
        wait_until(lambda: psutil.Process(ours.pid).cmdline()[1:2] == ["-m"], "it runs", timeout_s=20)
        ours_too = walkthrough._processes(folder)
        assert [process.pid for process in ours_too] == [ours.pid]
        walkthrough.ENDS_S, before = 0.5, walkthrough.ENDS_S
        try:
            walkthrough.down(folder)
        finally:
            walkthrough.ENDS_S = before
        assert ours.wait(10) is not None and other.poll() is None and not folder.exists()
        said = capsys.readouterr().out
        assert said.index("then removing") < said.index("Stopped and removed.") and "ledgers" in said
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_make_names_both_commands_and_cleans_up_after_them() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("federation", "federation-down"):
        assert re.search(rf"^{target}:.* ## \w", text, re.M), target
    assert re.search(r"^clean: federation-down ", text, re.M), "what runs is stopped before its folder is removed"
