"""`make federation` from its first line to `make federation-down`: the newcomer's ten minutes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from server.export.adapter import load_finished
from simulations.e2e.federation import COMMAND_POLL_S, wait_until
from simulations.e2e.walkthrough import NODES, YOURS, _processes
from tests.support.handed_out import unfit
from tests.support.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
PROGRAMS = {"fedvault-server": "server", "fedvault-node": "client"}


def make(command: str, folder: Path) -> str:
    return run("simulations.e2e.walkthrough", command, "--folder", str(folder))


def run(*arguments: str, answers: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        input=answers,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


def typed(said: str, start: str) -> str:
    """Types the one line that begins so, as `make federation` printed it."""
    line = next(line.strip() for line in said.splitlines() if line.strip().startswith(f".venv/bin/{start}"))
    program, *arguments = shlex.split(line.replace(" --watch", ""))
    return run(PROGRAMS[Path(program).name], *arguments, answers="y\n")


def test_a_newcomer_decides_watches_exports_and_takes_it_down(tmp_path: Path) -> None:
    folder = tmp_path / "f"  # short: the path of a Unix socket has at most 107 characters
    try:
        said = make("up", folder)
        assert f"It waits for '{YOURS}': for you." in said
        again = make("up", folder)
        assert again == f"It runs already.\n{said}", "the second call changes nothing and says the same"
        (named,) = set(re.findall(r"r-\d{8}-\w{8}", said))
        waiting = typed(said, "fedvault-server status")
        assert named in waiting and "2 of 3" in waiting
        assert "purpose" in typed(said, "fedvault-node show").lower()
        assert "FAILED" not in typed(said, "fedvault-node doctor")
        typed(said, "fedvault-node approve")
        home = ["--home", str(folder / "server"), "--json"]
        finished = lambda: json.loads(run("server", "show", named, *home))["state"] == "finished"  # noqa: E731
        wait_until(finished, "the study is finished", timeout_s=900, poll_s=COMMAND_POLL_S)
        history = json.loads(run("server", "show", named, *home))["history"]
        assert all(len(record["accepted"]) == len(NODES) for record in history)
        assert history[-1]["evaluation"]["accuracy"] > 0.6
        assert "Your Name" in typed(said, "fedvault-node ledger")
        typed(said, "fedvault-server export")
        assert load_finished(folder / "adapter").classify(["I loved every minute."])[0] in ("negative", "positive")
        assert unfit(folder / "adapter") == []
    finally:
        down = make("down", folder)
    assert "Stopped and removed." in down and not folder.exists()
    assert _processes(folder) == []
