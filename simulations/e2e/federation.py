"""A server and its nodes as real processes in one folder, driven by the commands that people type."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil

from client.link.vault_client import VaultClient
from server.operator.round_text import round_in_flight
from server.run_store.store import Store
from server.settings import Home

T = TypeVar("T")
COMMAND_TIMEOUT_S = 300.0
POLL_S = 0.2
COMMAND_POLL_S = 1.0  # a command is a process, and takes a second of a core that what it asks about may need
OFFERED_S = 300.0  # the server measures the untrained adapter first


class Impatience(AssertionError):  # noqa: N818 - says what it is
    """Something that should have happened did not."""


@dataclass
class Federation:
    """Everything below one folder; ports are free ones.

    Args:
        folder: empty.
    """

    folder: Path
    nodes: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """Return the server's folder."""
        return self.folder / "server"

    def config(self, node: str) -> Path:
        """Return the path of a node's settings."""
        return self.folder / node / "node.toml"

    def make_server(self, settings: str = "", *, port: int = 0, superlink_port: int = 0) -> None:
        """Make the server's folder, with ports that nobody uses where none are given; `port` is the gateway's."""
        gateway, superlink = port or free_port(), superlink_port or free_port()
        self.server("init", "--host", "127.0.0.1", "--port", str(gateway))
        path = self.home / "server.toml"
        path.write_text(f"{path.read_text()}superlink_port = {superlink}\nmetrics_port = 0\n{settings}\n")

    def make_node(self, name: str, data: str, policy: str, *, node: str = "") -> None:
        """Write settings and data of a node."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "records.csv").write_text(data)
        (folder / "node.toml").write_text(f'[node]\n{node}\n[datasets.ward]\nsource = "records.csv"\n{policy}\n')
        self.node(name, "init")
        self.nodes.append(name)

    def enrol(self, name: str) -> None:
        """Invite a node and let it join."""
        invite = self.folder / f"{name}.invite.json"
        self.server("invite", name, "--out", str(invite))
        self.node(name, "join", str(invite))

    @property
    def address(self) -> tuple[str, int]:
        """Return where the gateway listens."""
        return "127.0.0.1", Home(self.home).settings().port

    def ready(self) -> bool:
        """Return whether gateway and SuperLink both answer."""
        ports = self.address[1], Home(self.home).settings().superlink_port
        return all(listens(port) for port in ports)

    def server(self, *arguments: str, check: bool = True) -> str:
        """Type a command of the server's operator; return what it prints."""
        return command("server", *arguments, "--home", str(self.home), check=check)

    def node(self, name: str, *arguments: str, check: bool = True) -> str:
        """Type a command of a node's operator; return what it prints."""
        return command("client", *arguments, "--config", str(self.config(name)), check=check)

    def run(self, name: str) -> dict[str, Any]:
        """Read a run as `show --json` prints it, in this process: it is polled, and a command takes a second of CPU."""
        with Store(Home(self.home).database()) as store:
            run, rounds = store.run(name), store.rounds(name)
            history = [record | {"evaluation": evaluation} for record, evaluation in rounds]
            return run.as_dict() | {"history": history, "nodes": store.names()}

    def in_flight(self, name: str) -> dict[str, Any]:
        """Read the round that a run is asking, as `show --json` prints it; empty if there is none."""
        with Store(Home(self.home).database()) as store:
            return round_in_flight(store.events(name), store.run(name).round) or {}

    def start_study(self, study: Path) -> str:
        """Queue a study; return the run's name."""
        return str(json.loads(self.server("run", str(study), "--json"))["id"])

    def approve(self, names: list[str], run: str) -> None:
        """Approve the study at these nodes once it is on offer there."""
        for name in names:
            self.shown(name, run)
            self.node(name, "approve", run, "--yes")

    def shown(self, name: str, run: str) -> None:
        """Wait until a study is on offer at a node."""
        wait_until(
            lambda: run in self.node(name, "studies", "--json"),
            f"{name} is shown {run}",
            timeout_s=OFFERED_S,
            poll_s=COMMAND_POLL_S,
        )

    def pid(self, of: str, process: str) -> int:
        """Return the process id of `superlink`, `gateway`, `run-…` (server) or `vault`, `link` (a node)."""
        processes = json.loads((self._running(of) / "state.json").read_text())["processes"]
        pids = [facts["pid"] for name, facts in processes.items() if name.startswith(process) and facts["pid"]]
        if not pids:
            raise Impatience(f"no process {process} of {of}")
        return int(pids[0])

    def supervisor(self, of: str) -> int:
        """Return the process id of the supervisor of `server`, or of a node."""
        return int(json.loads((self._running(of) / "state.json").read_text())["pid"])

    def signal(self, of: str, process: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one process, which may be starting right now."""
        pid = wait_until(lambda: self._alive(of, process), f"{process} of {of} runs")
        os.kill(pid, number)
        return pid

    def in_training(self, node: str) -> bool:
        """Return whether a node's vault is in the middle of a round."""
        vault = VaultClient(self.folder / node / "node" / "run" / "vault.sock")
        try:
            status = vault.status()
        except grpc.RpcError:
            return False
        finally:
            vault.close()
        return bool(status.busy and status.steps_done)

    def stop(self) -> None:
        """Stop everything, frozen processes too."""
        for name in self.nodes:
            self.node(name, "stop", check=False)
        self.server("halt", check=False)
        for process in psutil.process_iter(["cmdline"]):
            ours = any(str(self.folder) in part for part in process.info["cmdline"] or [])
            if ours and process.pid != os.getpid():
                process.kill()

    def _running(self, of: str) -> Path:
        return self.home / "run" if of == "server" else self.folder / of / "node" / "run"

    def _alive(self, of: str, process: str) -> int:
        try:
            pid = self.pid(of, process)
            os.kill(pid, 0)
        except (Impatience, OSError, ValueError, KeyError):
            return 0
        return pid


def command(package: str, *arguments: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run one of FedVault's commands; return what it prints.

    Raises:
        Impatience: it failed.
    """
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-m", package, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode:
        raise Impatience(f"{package} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def wait_until(look: Callable[[], T], what: str, *, timeout_s: float = 300.0, poll_s: float = POLL_S) -> T:
    """Look until a condition is true; return what was seen.

    Raises:
        Impatience: it is not.
    """
    deadline = time.monotonic() + timeout_s
    while not (outcome := look()):
        if time.monotonic() > deadline:
            raise Impatience(f"expected within {timeout_s:g} s: {what}")
        time.sleep(poll_s)
    return outcome


def listens(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port on which nobody listens, and which the system hands to nobody else for a minute.

    A connection that the listening side closes leaves the port in TIME_WAIT: a server may take it, a search for any
    free port does not. So tests that run side by side never draw the same one.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)):
            listening.accept()[0].close()
        return port
