"""Keep processes running: start them, restart them when they die, stop them in order.

A folder has one supervisor. Its children end when it is gone, however it ended: each one checks who its parent is.
"""

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.errors import RunError
from shared.files import write_atomically

FIRST_PAUSE_S, LONGEST_PAUSE_S, STABLE_S = 0.5, 60.0, 60.0
TICK_S, GRACE_S = 0.2, 15.0
PARENT = "FEDVAULT_PARENT"
STARTS_WITHIN_S = 60.0
"""A process this young that does not answer yet is starting up: loading its libraries takes seconds."""
EXIT_STARTING = 10
"""Exit code of `status --check` while something is starting up, which is no error."""


@dataclass(frozen=True)
class Child:
    """A process that the supervisor should keep running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Watched:
    """A child process with its history of failures."""

    child: Child
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    since: str = ""
    not_before: float = 0.0
    failures: int = 0
    last_exit: int | None = None


class Supervisor:
    """Keeps the wanted processes of one folder running until it receives a signal.

    Guarantee: there is at most one supervisor per folder, and no child outlives it for long.

    Args:
        folder: holds the lock, the state that `status` shows, and the process id that `stop` signals.
        logs: folder with one file per child.
        wanted: returns the processes that should run now, in the order of starting; called several times a second.
    """

    def __init__(self, folder: Path, logs: Path, wanted: Callable[[], Sequence[Child]]) -> None:
        self._folder, self._logs, self._wanted = folder, logs, wanted
        self._watched: dict[str, Watched] = {}
        self._stop = threading.Event()

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT.

        Raises:
            RunError: another supervisor has this folder.
        """
        for path in (self._folder, self._logs):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "supervisor.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"Expected no other supervisor in {self._folder}, got one that runs.") from None
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stop.set())
            try:
                while not self._stop.is_set():
                    self.tick()
                    self._stop.wait(TICK_S)
            finally:
                self._stop_all()
                (self._folder / "state.json").unlink(missing_ok=True)

    def tick(self) -> None:
        """Stop children that are not wanted any more, notice those that died, and start those whose pause is over."""
        now, wanted = time.monotonic(), {child.name: child for child in self._wanted()}
        changed = False
        for name in [name for name in self._watched if name not in wanted]:
            self._end(self._watched.pop(name))
            changed = True
        for name, child in wanted.items():
            watched = self._watched.setdefault(name, Watched(child))
            if watched.process is not None and watched.process.poll() is not None:
                self._died(watched, now)
                changed = True
            if watched.process is None and now >= watched.not_before:
                watched.child = child
                self._start(watched, now)
                changed = True
        if changed:
            self._write_state()

    def _start(self, watched: Watched, now: float) -> None:
        environment = {**os.environ, **watched.child.environment, PARENT: str(os.getpid())}
        with (self._logs / f"{watched.child.name}.log").open("ab") as log:
            # a group of its own: Ctrl-C reaches the supervisor alone, which then stops its children in order
            watched.process = subprocess.Popen(  # noqa: S603 - our own commands
                watched.child.command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,
            )
        watched.started, watched.since = now, datetime.now(UTC).isoformat(timespec="seconds")

    def _died(self, watched: Watched, now: float) -> None:
        assert watched.process is not None  # noqa: S101 - the caller looked
        watched.last_exit, watched.process = watched.process.returncode, None
        watched.failures = 1 if now - watched.started > STABLE_S else watched.failures + 1
        watched.not_before = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (watched.failures - 1))

    def _end(self, watched: Watched) -> None:
        if watched.process is None:
            return
        watched.process.terminate()
        try:
            watched.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            watched.process.kill()
            watched.process.wait()

    def _stop_all(self) -> None:
        for watched in reversed(list(self._watched.values())):
            self._end(watched)

    def _write_state(self) -> None:
        processes = {
            name: {
                "pid": watched.process.pid if watched.process else None,
                "failures": watched.failures,
                "last_exit": watched.last_exit,
                "since": watched.since,
            }
            for name, watched in self._watched.items()
        }
        state = {"pid": os.getpid(), "processes": processes}
        write_atomically(self._folder / "state.json", json.dumps(state, indent=1).encode())


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state that a running supervisor last wrote; None if none runs."""
    try:
        with (folder / "supervisor.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pass
    except OSError:
        return None
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {"pid": None, "processes": {}}
    return state


def is_starting(process: Mapping[str, Any] | None, now: datetime) -> bool:
    """Return true for a child, as `read_state` describes it, that has run for so short that it need not answer yet.

    A supervisor that has started none so far is starting up as well; one that died before is not: it is in trouble.
    """
    if process is None:
        return True
    if process["pid"] is None or process["failures"]:
        return False
    since = process.get("since", "")  # a supervisor from before an update does not say it
    return since != "" and (now - datetime.fromisoformat(since)).total_seconds() < STARTS_WITHIN_S


def troubles_of(processes: Mapping[str, Mapping[str, Any]], logs: str) -> list[str]:
    """Return a sentence for every child that has ended by itself, and how often.

    Args:
        processes: as `read_state` describes them, by name.
        logs: the command that shows their logs.
    """
    lines = []
    for name, process in processes.items():
        if process["failures"]:
            state = "runs again" if process["pid"] else "is being started again"
            times = "once" if process["failures"] == 1 else f"{process['failures']} times in a row"
            lines.append(f"{name} ended by itself {times} (exit code {process['last_exit']}) and {state}: see {logs}.")
    return lines


def stop(folder: Path, *, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor of a folder and wait until it has ended; return False if none runs.

    Raises:
        RunError: it does not stop.
    """
    state = read_state(folder)
    if state is None:
        return False
    if state["pid"]:
        os.kill(state["pid"], signal.SIGTERM)
    give_up = time.monotonic() + timeout_s
    while read_state(folder) is not None:
        if time.monotonic() > give_up:
            raise RunError(f"Expected process {state['pid']} to stop within {timeout_s:g} s, it still runs.")
        time.sleep(TICK_S)
    return True


def tail(logs: Path, *, follow: bool, lines: int = 50, as_json: bool = False) -> None:
    """Print the last lines of every log in a folder; with `follow`, also new lines, until interrupted.

    Args:
        logs: the folder.
        follow: keep printing new lines.
        lines: how many of each file.
        as_json: print each line as an object. Most are objects already; the others come from a library or a crash.
    """
    seen: dict[Path, int] = {}
    while True:
        for path in sorted(logs.glob("*.log")):
            content = path.read_bytes()
            start = seen.get(path)
            new = content if start is None else content[start:]
            recent = new.splitlines()[-lines:] if start is None else new.splitlines()
            for line in recent:
                shown = line.decode(errors="replace")
                print(_as_object(shown, path.stem) if as_json else shown)  # noqa: T201 - a command speaks
            seen[path] = len(content)
        if not follow:
            return
        time.sleep(5 * TICK_S)


def _as_object(line: str, process: str) -> str:
    try:
        if isinstance(json.loads(line), dict):
            return line
    except ValueError:
        pass
    return json.dumps({"process": process, "message": line}, ensure_ascii=False)


def leave_with_parent() -> None:
    """End this process when the supervisor that started it is gone, even if that was killed; a child calls this."""
    parent = os.environ.get(PARENT)
    if not parent:
        return

    def look() -> None:
        while os.getppid() == int(parent):
            time.sleep(TICK_S * 5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def detach(command: Sequence[str], log: Path, folder: Path, *, timeout_s: float = 60.0) -> int:
    """Start a supervisor in the background, and return its process id once it runs.

    Raises:
        RunError: it ended immediately; its log says why.
    """
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
        )
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up:
        state = read_state(folder)
        if state is not None and state["pid"] == process.pid:
            process.returncode = 0  # it outlives us: nobody is to wait for it, or to miss that
            return process.pid
        if process.poll() is not None:
            break
        time.sleep(TICK_S)
    raise RunError("Expected it to start in the background, it ended.", hint=f"Its log: {log}")
