"""Processes that are started again, stopped in order, and never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.errors import RunError
from shared.supervisor import Child, Supervisor, detach, read_state, stop, tail

pytestmark = pytest.mark.integration
CHILD = "import shared.supervisor as s, time; s.leave_with_parent(); print('up', flush=True); time.sleep(600)"
SUPERVISE = """
import sys
from pathlib import Path
from shared.supervisor import Child, Supervisor
folder = Path(sys.argv[1])
child = Child("sleeper", (sys.executable, "-c", sys.argv[2]), {"COLOUR": "green"})
Supervisor(folder / "run", folder / "logs", lambda: [child]).run()
"""


def wait_until(true: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


def child_pid(folder: Path) -> int:
    state = read_state(folder / "run")
    return int((state or {"processes": {}})["processes"].get("sleeper", {}).get("pid") or 0)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[int]:
    """A supervisor in the background with one child; its process id."""
    command = [sys.executable, "-c", SUPERVISE, str(tmp_path), CHILD]
    pid = detach(command, tmp_path / "logs" / "supervisor.log", tmp_path / "run")
    wait_until(lambda: child_pid(tmp_path))
    yield pid
    child = child_pid(tmp_path)
    for left in (pid, child):
        if left:
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def test_a_child_that_dies_is_started_again_and_stop_ends_everything(tmp_path: Path, supervised: int) -> None:
    first = child_pid(tmp_path)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: child_pid(tmp_path) not in (0, first))
    state = read_state(tmp_path / "run")
    assert state is not None and state["pid"] == supervised
    assert state["processes"]["sleeper"]["failures"] == 1 and state["processes"]["sleeper"]["last_exit"] == -9
    second = child_pid(tmp_path)
    assert stop(tmp_path / "run") and not alive(second)
    assert read_state(tmp_path / "run") is None and not stop(tmp_path / "run")


@pytest.mark.guarantee("there is at most one supervisor per folder, and no child outlives it for long.")
def test_a_second_supervisor_does_not_start(tmp_path: Path, supervised: int) -> None:
    with pytest.raises(RunError, match="Expected no other supervisor"):
        Supervisor(tmp_path / "run", tmp_path / "logs", list).run()
    with pytest.raises(RunError, match="in the background") as raised:
        detach([sys.executable, "-c", SUPERVISE, str(tmp_path), CHILD], tmp_path / "second.log", tmp_path / "run")
    assert str(tmp_path / "second.log") in raised.value.hint and alive(supervised)


@pytest.mark.guarantee("there is at most one supervisor per folder, and no child outlives it for long.")
def test_children_leave_when_their_supervisor_is_killed(tmp_path: Path, supervised: int) -> None:
    child = child_pid(tmp_path)
    wait_until(lambda: "up" in (tmp_path / "logs" / "sleeper.log").read_text())
    os.kill(supervised, signal.SIGKILL)
    wait_until(lambda: not alive(child))
    assert read_state(tmp_path / "run") is None


def test_pauses_between_starts_grow_and_what_is_not_wanted_is_stopped(tmp_path: Path) -> None:
    failing = Child("failing", (sys.executable, "-c", "raise SystemExit(3)"))
    wanted = [failing]
    supervisor = Supervisor(tmp_path / "run", tmp_path / "logs", lambda: wanted)
    for path in ("run", "logs"):
        (tmp_path / path).mkdir()
    kept = supervisor._watched
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and (not kept or kept["failing"].failures < 3):
        supervisor.tick()
        time.sleep(0.02)
    assert kept["failing"].last_exit == 3 and kept["failing"].not_before - time.monotonic() > 1.0
    wanted.clear()
    supervisor.tick()
    assert kept == {} and json.loads((tmp_path / "run" / "state.json").read_text())["processes"] == {}


def test_the_last_lines_of_every_log_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.log").write_text("".join(f"line {i}\n" for i in range(100)))
    (tmp_path / "b.log").write_bytes(b"\xff broken\n")
    tail(tmp_path, follow=False, lines=2)
    assert capsys.readouterr().out.splitlines() == ["line 98", "line 99", "\ufffd broken"]


def test_children_see_their_environment(tmp_path: Path) -> None:
    child = Child("one", (sys.executable, "-c", "import os; print(os.environ['COLOUR'])"), {"COLOUR": "green"})
    supervisor = Supervisor(tmp_path, tmp_path, lambda: [child])
    supervisor.tick()
    wait_until(lambda: (tmp_path / "one.log").read_text() == "green\n")
    process = supervisor._watched["one"].process
    assert process is not None
    process.wait()


def test_logs_are_json_lines_without_tracebacks_unless_asked(tmp_path: Path) -> None:
    code = """
import logging, sys
from shared.logs import configure
configure("vault", level=sys.argv[1])
log = logging.getLogger("x")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("It failed with %s.", "ü")
"""
    for level, told in (("INFO", False), ("DEBUG", True)):
        done = subprocess.run([sys.executable, "-c", code, level], capture_output=True, text=True, check=True)
        line = json.loads(done.stderr)
        assert line["process"] == "vault" and line["level"] == "error" and line["message"] == "It failed with ü."
        assert line["error"] == "ZeroDivisionError: division by zero" and ("traceback" in line) is told
