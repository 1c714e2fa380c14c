"""Processes that are started again, stopped in order, and never left behind."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.errors import RunError
from shared.processes.faults import Faults
from shared.processes.running import detach, read_state, stop, troubles_of
from shared.processes.supervisor import Child, Supervisor

pytestmark = pytest.mark.integration
CHILD = "import shared.processes.supervisor as s, time; s.leave_with_parent(); print('up', flush=True); time.sleep(600)"
SUPERVISE = """
import sys
from pathlib import Path
from shared.processes.supervisor import Child, Supervisor
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


def look(supervisor: Supervisor) -> None:
    """Ask what is wanted, and make it so."""
    supervisor.ask()
    supervisor.tick()


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


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)])
def test_a_child_is_told_how_the_one_before_it_ended(tmp_path: Path, ends: str, code: int) -> None:
    script = f"import os, sys, shared.processes.supervisor as s; print(s.last_exit(), flush=True); {ends}"
    wanted = [Child("child", (sys.executable, "-c", script))]
    supervisor = Supervisor(tmp_path / "run", tmp_path, lambda: wanted)
    (tmp_path / "run").mkdir()

    def lines() -> list[str]:
        look(supervisor)
        log = tmp_path / "child.log"
        return log.read_text().split() if log.exists() else []

    wait_until(lambda: len(lines()) >= 2)
    assert lines()[:2] == ["None", str(code)]
    wanted.clear()
    look(supervisor)  # ends the last one, and waits for it


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
        look(supervisor)
        time.sleep(0.02)
    assert kept["failing"].last_exit == 3 and kept["failing"].not_before - time.monotonic() > 1.0
    wanted.clear()
    look(supervisor)
    assert kept == {} and json.loads((tmp_path / "run" / "state.json").read_text())["processes"] == {}


def test_children_see_their_environment(tmp_path: Path) -> None:
    child = Child("one", (sys.executable, "-c", "import os; print(os.environ['COLOUR'])"), {"COLOUR": "green"})
    supervisor = Supervisor(tmp_path, tmp_path, lambda: [child])
    look(supervisor)
    wait_until(lambda: (tmp_path / "one.log").read_text() == "green\n")
    process = supervisor._watched["one"].process
    assert process is not None
    process.wait()


SLEEPER = Child("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"))
ASKED = """
import sys, time
from pathlib import Path
from shared.processes.supervisor import Child, Supervisor
folder, asked = Path(sys.argv[1]), []
def wanted():
    asked.append(time.monotonic())
    (folder / "asked").write_text(str(len(asked)))
    if len(asked) == 2:
        raise RuntimeError("the database was restarted")
    if len(asked) == 3:
        time.sleep(600)
    return [Child("sleeper", (sys.executable, "-c", sys.argv[2]))]
Supervisor(folder / "run", folder / "logs", wanted).run()
"""


def ends(supervisor: Supervisor) -> None:
    supervisor._wanted = list
    look(supervisor)


@pytest.mark.guarantee(
    "a supervisor outlives its database, a full disk and a machine without memory for another process."
)
def test_a_database_that_fails_and_then_hangs_holds_up_nothing_and_is_asked_once_a_second(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASKED, str(tmp_path), CHILD]
    begun, pid = time.monotonic(), detach(command, tmp_path / "logs" / "supervisor.log", tmp_path / "run")
    try:
        wait_until(lambda: (tmp_path / "asked").read_text() == "3")
        assert time.monotonic() - begun > 2.0
        first = child_pid(tmp_path)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: child_pid(tmp_path) not in (0, first))
        logged = (tmp_path / "logs" / "supervisor.log").read_text()
        assert logged.count("RuntimeError: the database was restarted. What ran goes on.") == 1
    finally:
        assert alive(pid) and stop(tmp_path / "run")


@pytest.mark.guarantee(
    "a supervisor outlives its database, a full disk and a machine without memory for another process."
)
def test_a_disk_that_takes_neither_log_nor_state_keeps_no_child_from_running(tmp_path: Path) -> None:
    for name in ("run", "logs"):  # a file where a folder should be refuses root, too
        (tmp_path / name).write_text("")
    supervisor = Supervisor(tmp_path / "run", tmp_path / "logs", lambda: [SLEEPER])
    look(supervisor)
    process = supervisor._watched["sleeper"].process
    assert process is not None and alive(process.pid)
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    look(supervisor)
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["processes"]["sleeper"]["pid"] == process.pid, "written as soon as it can be"
    ends(supervisor)


@pytest.mark.guarantee(
    "a supervisor outlives its database, a full disk and a machine without memory for another process."
)
def test_a_child_that_cannot_be_started_is_tried_again_later_and_the_others_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor(tmp_path, tmp_path, lambda: [Child("absent", (str(tmp_path / "absent"),)), SLEEPER])
    for _ in range(20):
        look(supervisor)
    absent = supervisor._watched["absent"]
    assert absent.failures == 1 and absent.not_before > time.monotonic() and supervisor._watched["sleeper"].process
    assert [record.levelname for record in caplog.records] == ["ERROR"], "the same fault is logged once"
    told = {"absent": {"pid": None, "failures": 1, "last_exit": None}}
    assert troubles_of(told, "logs") == ["absent could not be started once and is being started again: see logs."]
    ends(supervisor)


def test_a_fault_is_logged_when_it_begins_changes_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    faults, script = Faults(), [OSError("full"), OSError("full"), OSError("broken"), None, None, OSError("full")]
    with caplog.at_level("INFO"):
        for error in script:
            with faults.tolerated("Writing", "Reading goes on."):
                if error:
                    raise error
    assert [record.getMessage() for record in caplog.records] == [
        "Writing failed: OSError: full. Reading goes on.",
        "Writing failed: OSError: broken. Reading goes on.",
        "Writing succeeds again.",
        "Writing failed: OSError: full. Reading goes on.",
    ]


def test_a_supervisor_is_found_and_stopped_without_the_state_that_a_full_disk_did_not_take(
    tmp_path: Path, supervised: int
) -> None:
    (tmp_path / "run" / "state.json").unlink()
    assert read_state(tmp_path / "run") == {"pid": supervised, "processes": {}}
    assert stop(tmp_path / "run")
    wait_until(lambda: not alive(supervised))  # it lets go of its lock first


def test_a_question_whether_a_supervisor_runs_keeps_none_from_starting(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "supervisor.lock").open("w") as asked:
        fcntl.flock(asked, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, lambda: fcntl.flock(asked, fcntl.LOCK_UN))
        timer.start()
        command = [sys.executable, "-c", SUPERVISE, str(tmp_path), CHILD]
        detach(command, tmp_path / "logs" / "supervisor.log", tmp_path / "run")
        timer.join()
    assert stop(tmp_path / "run")


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
