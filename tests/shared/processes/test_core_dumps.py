"""A crash keeps no memory of a process that may have seen records."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CRASHES = "import os; from shared.processes.core_dumps import forbid_core_dumps; forbid_core_dumps(); os.abort()"
TOLD = """
import resource, sys
import client.cli.app as app
app.run_command = lambda _cli: print(resource.getrlimit(resource.RLIMIT_CORE))
app.main()
"""


def ran(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    def may_dump() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))

    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, preexec_fn=may_dump
    )


@pytest.mark.guarantee(
    "a crash writes no memory of a node's processes to a file, and hands none to a handler of crashes."
)
def test_a_crash_leaves_no_memory_behind(tmp_path: Path) -> None:
    assert ran(CRASHES, tmp_path).returncode == -signal.SIGABRT
    assert [*tmp_path.iterdir()] == []


def test_every_command_of_a_node_forbids_it(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    expected = 0 if most == 0 else 1
    assert ran(TOLD, tmp_path).stdout.strip() == f"({expected}, {expected})"
