"""docker/README.md, typed as it stands, in namespaces that stand for the containers: one organisation, one study."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from server.export.adapter import load_finished
from simulations.e2e.federation import COMMAND_POLL_S, free_port, wait_until
from tests.support.documents import blocks
from tests.support.paths import ROOT

logger = logging.getLogger(__name__)
BLOCKS = blocks("docker/README.md", "bash")
STUDY = blocks("server/README.md", "toml")[0]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def cannot() -> str:
    """Why containers cannot be stood for here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root, to be the containers' users and to mount what they mount"
    if any(path.stat().st_mode & 0o005 != 0o005 for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix))):
        return "needs a repository and libraries that other users can read"
    try:
        subprocess.run(["/usr/bin/unshare", "--mount", "--net", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs namespaces: {error}"
    return ""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Beside docker/, where whoever reads the page stands."""
    reason = cannot()
    if reason:
        pytest.skip(reason)
    found = tmp_path_factory.mktemp("containers")
    shutil.copytree(ROOT / "docker", found / "docker")
    (found / ".venv").symlink_to(sys.prefix)
    tool = found / "tools" / "docker"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/stand_in_docker.py "$@"\n')
    tool.chmod(0o755)
    yield found
    for log in sorted((found / "engine").glob("*.log")):  # shown where the test fails
        logger.warning("%s:\n%s", log.name, "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
    for running in (found / "engine").glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(running.read_text()), signal.SIGTERM)


class Reader:
    """Types the page's blocks in order."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.left = folder, "", list(BLOCKS)

    def types(self, *, timeout_s: float = 300.0) -> str:
        """The next block; returns what it prints."""
        return self.says(self.left.pop(0), timeout_s=timeout_s)

    def says(self, script: str, *, timeout_s: float = 300.0) -> str:
        """What a script prints."""
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", "umask 022\n" + script.replace("RUN", self.run)],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'tools'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "PYTHONPATH": str(ROOT),
            },
            input="y\n" * 5,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def test_the_page_from_the_first_file_to_leaving(folder: Path) -> None:
    reader = Reader(folder)
    reader.types()
    write_what_the_operators_write(folder)
    before, after = reader.left[0].split("docker compose up -d server\n")
    reader.says(before)
    settings = folder / "engine" / "volumes" / "server" / "server.toml"
    port, other = free_port(), free_port()
    settings.write_text(
        re.sub(r"port = \d+", f"port = {port}", settings.read_text()) + f"superlink_port = {other}\nmetrics_port = 0\n"
        "operators = true\n"
    )
    reader.says("docker compose up -d server")
    wait_until(lambda: healthy(reader), "the server is healthy", timeout_s=300.0, poll_s=COMMAND_POLL_S)
    reader.says("export COMPOSE_FILE=docker/compose.yaml\n" + after)
    reader.left.pop(0)
    assert (folder / "north.invite.json").stat().st_mode & 0o077 == 0
    assert re.search(r"anna +valid +look", reader.types()) and (folder / "anna.p12").stat().st_mode & 0o077 == 0
    an_operator_sees_the_page(reader, port)

    found = reader.types()
    assert "FAILED" not in found and "accepted as north" in found and "its ledger has" in found
    show_page(reader)
    begin, look = reader.left.pop(0).split("docker compose exec north-vault")
    reader.says(begin)
    reader.run = wait_until(
        lambda: study_on_offer(reader), "the study is on offer", timeout_s=300.0, poll_s=COMMAND_POLL_S
    )
    assert reader.run in reader.says("docker compose exec north-vault" + look)
    followed = reader.types(timeout_s=900.0)
    assert "in its own container" in followed and "in the vault's container" in followed
    assert followed.count("The node runs") == 2 and "Connected to " in followed
    assert "round 2 asks north" in followed and "finished" in followed

    receipt = reader.types()
    assert "Valid." in receipt and json.loads((folder / "north.receipt.json").read_text())["run"] == reader.run
    assert load_finished(folder / "adapter").classify(["what a day"])[0] in {"negative", "positive"}
    assert "Left server:" in reader.types() and reader.left == []


def show_page(reader: Reader) -> None:
    """The operator's page: its address opens it once, and its socket is the vault's user's alone."""
    compose, port = reader.folder / "docker" / "compose.yaml", str(free_port())
    compose.write_text(compose.read_text().replace("8447", port))
    begin, look = reader.left.pop(0).split("docker compose logs")
    reader.says(begin)

    def address() -> str:
        written = re.findall(rf"http://127\.0\.0\.1:{port}/enter\?key=\S+", reader.says("docker compose logs" + look))
        return str(written[0]) if written else ""

    opened = wait_until(address, "the page says where it is")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as http:
        http.get(opened)
        wait_until(lambda: "Nothing waits for your decision" in http.get("/").text, "the page is answered")
        assert http.get(opened).status_code == 403
    socket = reader.folder / "engine" / "volumes" / "north-operator" / "sock"
    assert (oct(socket.stat().st_mode)[-3:], socket.stat().st_uid) == ("600", 10011)


def an_operator_sees_the_page(reader: Reader, port: int) -> None:
    """Show an operator's certificate to the gateway, which passes on to the page's own process; then revoke it."""
    reader.says(
        "export COMPOSE_FILE=docker/compose.yaml\n"
        "docker compose exec -T server fedvault-server operator ruth --pem --out - > ruth.pem\n"
        "cp engine/volumes/server/keys/authority.crt ."
    )
    context = ssl.create_default_context(cafile=reader.folder / "authority.crt")
    context.load_cert_chain(reader.folder / "ruth.pem")
    with httpx.Client(verify=context, timeout=30) as http:
        on_this_machine: dict[str, Any] = {
            "extensions": {"sni_hostname": "server"},
            "headers": {"host": f"server:{port}"},
        }
        at = f"https://127.0.0.1:{port}/operator/"
        entered = http.get(at, **on_this_machine)
        assert entered.status_code == 303, entered.text
        on_this_machine["headers"]["cookie"] = entered.headers["set-cookie"].partition(";")[0]
        page = http.get(at, **on_this_machine).text
        assert "You are ruth until 20" in page and "and may look and change nothing." in page
        reader.says(
            "export COMPOSE_FILE=docker/compose.yaml\ndocker compose exec server fedvault-server revoke ruth --operator"
        )
        assert http.get(at, **on_this_machine).status_code == 401


def write_what_the_operators_write(folder: Path) -> None:
    """Records, policy, study: small, and one organisation is enough."""
    table = pd.read_csv(ROOT / "data" / "vader" / "vader.csv", dtype=str, keep_default_na=False)
    table[table["site"] == "movies"].head(120).to_csv(folder / "docker" / "north" / "data" / "ward.csv", index=False)
    config = folder / "docker" / "north" / "settings" / "node.toml"
    config.write_text(config.read_text().replace("= 8500", "= 110\nsmallest_cohort = 1"))
    study = STUDY.replace("= 1000 ", "= 50 ").replace("quorum = 3 ", "quorum = 1 ").replace("rounds = 4", "rounds = 2")
    (folder / "docker" / "studies" / "study.toml").write_text(study)


def healthy(reader: Reader) -> bool:
    """What the image's own check says."""
    (check,) = re.findall(
        r'CMD (\["fedvault-server", "status".*\])', (ROOT / "docker" / "server.Dockerfile").read_text()
    )
    words = " ".join(json.loads(check))
    said = reader.says(f"docker compose exec server {words} 2>&1 && echo yes || echo no")
    logger.warning("%s", said)
    return said.splitlines()[-1] == "yes"


def study_on_offer(reader: Reader) -> str:
    """Its run, once the node has heard of it."""
    rows = json.loads(reader.says("docker compose exec north-vault fedvault-node studies --json"))
    return str(rows[0]["run"]) if rows else ""
