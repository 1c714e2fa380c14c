"""The guides to a server and a node, typed as they stand: one server, three nodes, one study."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from server.export.adapter import load_finished
from simulations.e2e.federation import COMMAND_POLL_S, free_port, wait_until
from tests.support.documents import blocks, commands
from tests.support.paths import ROOT

SERVER, NODE = "server/README.md", "client/README.md"
PROGRAMS = {".venv/bin/fedvault-server": "server", ".venv/bin/fedvault-node": "client"}
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_WAIT_POLICY": "passive"}
CONFIRM = "y\n"
ROWS = 120


class Reader:
    """Types a guide's commands, each found by how it begins, and remembers which."""

    def __init__(self, guide: str, folder: Path, **names: str) -> None:
        self.left, self.folder, self.names = commands(guide), folder, names
        self.all = list(self.left)
        folder.mkdir(parents=True, exist_ok=True)

    def types(self, start: str, *more: str) -> str:
        found = next(line for line in self.all if line.startswith(f"{start} ") or line == start)
        if found in self.left:
            self.left.remove(found)
        for name, value in self.names.items():
            found = found.replace(name, value)
        program, *arguments = shlex.split(found)
        done = subprocess.run(
            [sys.executable, "-m", PROGRAMS[program], *arguments, *more],
            cwd=self.folder,
            env=ENVIRONMENT | {"HOME": str(self.folder)},
            input=CONFIRM * 3,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{found}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(SERVER, tmp_path / "server")
    reader.names["--host fl.example.org"] = f"--host 127.0.0.1 --port {free_port()}"
    yield reader
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if str(tmp_path) in str(process.info["cwd"]) or str(tmp_path) in " ".join(process.info["cmdline"] or []):
            process.kill()


def test_a_server_and_three_nodes_as_their_guides_say(server: Reader, tmp_path: Path) -> None:
    server.types(".venv/bin/fedvault-server init")
    settings = server.folder / "federation" / "server.toml"
    settings.write_text(f"{settings.read_text()}superlink_port = {free_port()}\nmetrics_port = 0\n")
    server.types(".venv/bin/fedvault-server start")
    wait_until(lambda: server_state(server) == "runs", "the server answers", poll_s=COMMAND_POLL_S)
    (study,) = (block for block in blocks(SERVER, "toml") if "[model]" in block)
    (server.folder / "study.toml").write_text(study.replace("= 1000 ", "= 50 "))
    nodes = [enrolled(server, tmp_path, name) for name in ("st-mary", "north", "west")]
    wait_until(lambda: present(server) == ["north", "st-mary", "west"], "all are present", poll_s=COMMAND_POLL_S)

    assert json.loads(server.types(".venv/bin/fedvault-server plan", "--json"))["rounds"] == 4
    server.types(".venv/bin/fedvault-server run")
    (run,) = [shown["id"] for shown in json.loads(server.types(".venv/bin/fedvault-server runs", "--json"))]
    server.names["RUN"] = run
    for node in nodes:
        node.names["RUN"] = run
        wait_until(
            lambda node=node: run in node.types(".venv/bin/fedvault-node studies"),
            "the study is on offer",
            poll_s=COMMAND_POLL_S,
        )
        node.types(".venv/bin/fedvault-node show")
        assert "FAILED" not in node.types(".venv/bin/fedvault-node doctor")
        node.types(".venv/bin/fedvault-node approve")
    server.types(".venv/bin/fedvault-server stop")
    server.types(".venv/bin/fedvault-server resume")
    wait_until(lambda: state(server) == "finished", "the study is finished", timeout_s=600, poll_s=COMMAND_POLL_S)
    history = json.loads(server.types(".venv/bin/fedvault-server show", "--json"))["history"]
    assert [record["outcome"] for record in history] == ["aggregated"] * 4
    assert "finished" in server.types(".venv/bin/fedvault-server logs")
    server.types(".venv/bin/fedvault-server export")
    assert load_finished(server.folder / "adapter").classify(["what a day"])[0] in {"negative", "positive"}
    assert json.loads(server.types(".venv/bin/fedvault-server status", "--json"))["running"]

    mary = nodes[0]
    server.types(".venv/bin/fedvault-server invite st-mary --renew")
    (server.folder / "st-mary-again.json").rename(mary.folder / "st-mary.json")
    mary.types(".venv/bin/fedvault-node join")
    spent = json.loads(mary.types(".venv/bin/fedvault-node ledger", "--json"))["datasets"]["ward"]["spent"]
    assert 0.9 < spent <= 1.0, "the whole study, and no more"
    for command in ("status", "receipt", "verify", "logs", "reject", "backup", "withdraw", "stop", "leave"):
        mary.types(f".venv/bin/fedvault-node {command}")
    for command in ("renew", "revoke", "backup", "halt", "restore", "renew --authority", "renew --finish"):
        server.types(f".venv/bin/fedvault-server {command}")
    assert (server.left, mary.left) == ([], []), "every command of both guides was typed"


def enrolled(server: Reader, tmp_path: Path, name: str) -> Reader:
    """A node with its own records, as the guide says, up to `start`."""
    node = Reader(NODE, tmp_path / name, **{"st-mary": name})
    server.names["st-mary"] = name
    server.types(".venv/bin/fedvault-server invite")
    del server.names["st-mary"]
    (server.folder / f"{name}.json").rename(node.folder / f"{name}.json")
    table = pd.read_csv(ROOT / "data" / "vader" / "vader.csv", dtype=str, keep_default_na=False)
    table[table["site"] == {"st-mary": "amazon", "north": "movies", "west": "tweets"}[name]].head(ROWS).to_csv(
        node.folder / "ward.csv", index=False
    )
    node.types(".venv/bin/fedvault-node init")
    (policy,) = blocks(NODE, "toml")
    here = json.loads(node.types(".venv/bin/fedvault-node models", "--json"))
    assert any(model["fingerprint"] in policy for model in here)
    config = node.folder / "node.toml"
    config.write_text(f"{config.read_text()}\n{policy.replace('= 1800 ', '= 110 ')}\n[performance]\nthreads = 1\n")
    node.types(".venv/bin/fedvault-node join")
    node.types(".venv/bin/fedvault-node register")
    node.types(".venv/bin/fedvault-node start")
    return node


def server_state(server: Reader) -> str:
    return str(json.loads(server.types(".venv/bin/fedvault-server status", "--json"))["state"])


def present(server: Reader) -> list[str]:
    return [
        node["name"]
        for node in json.loads(server.types(".venv/bin/fedvault-server nodes", "--json"))
        if node["present"]
    ]


def state(server: Reader) -> str:
    return str(json.loads(server.types(".venv/bin/fedvault-server show", "--json"))["state"])
