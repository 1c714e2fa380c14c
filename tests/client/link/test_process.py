"""The link's process before its node is a member."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from client.link.process import _wait_for_join
from tests.support.paths import ROOT

SETTINGS = '[node]\nhome = "home"\nledger_copy = "copy"\n'


def started(folder: Path, deployment: str) -> "subprocess.Popen[str]":
    (folder / "node.toml").write_text(SETTINGS)
    return subprocess.Popen(
        [sys.executable, "-m", "client", "link", "--config", str(folder / "node.toml")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "FEDVAULT_DEPLOYMENT": deployment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_container_of_the_link_is_there_for_join_and_ends_when_it_is_told(tmp_path: Path) -> None:
    with started(tmp_path, "link") as process:
        assert process.stdout is not None
        assert "It waits for: fedvault-node join INVITE" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_a_link_beside_its_vault_says_that_its_node_has_not_joined(tmp_path: Path) -> None:
    with started(tmp_path, "") as process:
        told, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "fedvault-node join INVITE" in told and "Traceback" not in told


def test_it_goes_on_as_soon_as_its_node_is_a_member(tmp_path: Path) -> None:
    stop = threading.Event()
    joins = threading.Timer(0.2, (tmp_path / "membership.json").write_text, ["{}"])
    joins.start()
    _wait_for_join(tmp_path, stop)
    assert (tmp_path / "membership.json").exists() and not stop.is_set()
