"""The gateway with real TLS in front of Flower's real SuperLink."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from server.authority import create, issue_server
from server.gateway import build_gateway

pytestmark = pytest.mark.integration
QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
CONTROL = ("/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/health")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SuperLink on loopback, as it comes: without authentication."""
    folder, port = tmp_path_factory.mktemp("superlink"), free_port()
    command = [str(Path(sys.executable).with_name("flower-superlink")), "--insecure", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--database", str(folder / "state.db")]
    # it starts its own helpers by name
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | QUIET | {"FLWR_HOME": str(folder), "PATH": path}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def gateway(superlink: str, folder: Path) -> Iterator[httpx.Client]:
    """The gateway under uvicorn with the federation's own certificate, and a client that trusts its authority."""
    authority = create(folder / "keys", "test federation")
    certificate = issue_server(folder / "keys", ["127.0.0.1"])
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            build_gateway(superlink),
            host="127.0.0.1",
            port=port,
            ssl_certfile=certificate.certificate,
            ssl_keyfile=certificate.key,
            log_level="error",
            ws="none",
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(port)
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting, timeout=20.0) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_for(port: int, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}")


@pytest.mark.guarantee("no path outside the Fleet API reaches the SuperLink, however it is written.")
def test_control_and_runtime_are_open_on_the_superlink_and_closed_at_the_gate(superlink: str, tmp_path: Path) -> None:
    with gateway(superlink, tmp_path) as outside, httpx.Client(base_url=superlink) as inside:
        # the control: on loopback these answer something other than "not found", which is why there is a gate
        assert all(inside.post(path).status_code != 404 for path in CONTROL[:3])
        assert [outside.post(path).status_code for path in CONTROL] == [404] * len(CONTROL)
        assert [outside.get(path).status_code for path in CONTROL] == [404] * len(CONTROL)


def test_the_fleet_api_answers_through_the_gate_as_it_does_inside(superlink: str, tmp_path: Path) -> None:
    with gateway(superlink, tmp_path) as outside, httpx.Client(base_url=superlink) as inside:
        for path in ("/v1/fleet/register-node", "/v1/fleet/pull-messages"):
            through, direct = outside.post(path, content=b"x"), inside.post(path, content=b"x")
            assert through.status_code == direct.status_code != 404
            assert through.content == direct.content


def test_without_the_authority_there_is_no_connection(superlink: str, tmp_path: Path) -> None:
    with gateway(superlink, tmp_path) as outside:
        stranger = httpx.Client(base_url=str(outside.base_url))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.post("/v1/fleet/pull-messages")
        stranger.close()
