"""Keeps processes running: starts them, starts them again when they die, stops them in order.

One supervisor per folder. Its children leave when it is gone, however it went: each asks who its parent is.
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
from pathlib import Path
from typing import Any

from shared.errors import RunError
from shared.files import write_atomically

FIRST_PAUSE_S, LONGEST_PAUSE_S, STABLE_S = 0.5, 60.0, 60.0
TICK_S, GRACE_S = 0.2, 15.0
PARENT = "FEDVAULT_PARENT"


@dataclass(frozen=True)
class Child:
    """A process that should run."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Kept:
    """A child with its history."""

    child: Child
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    not_before: float = 0.0
    failures: int = 0
    last_exit: int | None = None


class Supervisor:
    """Runs until it is told to stop.

    Guarantee: there is at most one supervisor per folder, and no child outlives it for long.

    Args:
        folder: for the lock, the state that `status` shows, and the process id that `stop` signals.
        logs: a file per child.
        wanted: what should run now, in the order of starting; asked again and again.
    """

    def __init__(self, folder: Path, logs: Path, wanted: Callable[[], Sequence[Child]]) -> None:
        self._folder, self._logs, self._wanted = folder, logs, wanted
        self._kept: dict[str, Kept] = {}
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
                raise RunError(f"Expected nothing to run in {self._folder} yet, something does.") from None
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
        """One look: stop what is not wanted, note who died, start who may."""
        now, wanted = time.monotonic(), {child.name: child for child in self._wanted()}
        changed = False
        for name in [name for name in self._kept if name not in wanted]:
            self._end(self._kept.pop(name))
            changed = True
        for name, child in wanted.items():
            kept = self._kept.setdefault(name, Kept(child))
            if kept.process is not None and kept.process.poll() is not None:
                self._died(kept, now)
                changed = True
            if kept.process is None and now >= kept.not_before:
                kept.child = child
                self._start(kept, now)
                changed = True
        if changed:
            self._write_state()

    def _start(self, kept: Kept, now: float) -> None:
        environment = {**os.environ, **kept.child.environment, PARENT: str(os.getpid())}
        with (self._logs / f"{kept.child.name}.log").open("ab") as log:
            # a group of its own: Ctrl-C reaches the supervisor alone, which then stops its children in order
            kept.process = subprocess.Popen(  # noqa: S603 - our own commands
                kept.child.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, process_group=0
            )
        kept.started = now

    def _died(self, kept: Kept, now: float) -> None:
        assert kept.process is not None  # noqa: S101 - the caller looked
        kept.last_exit, kept.process = kept.process.returncode, None
        kept.failures = 1 if now - kept.started > STABLE_S else kept.failures + 1
        kept.not_before = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (kept.failures - 1))

    def _end(self, kept: Kept) -> None:
        if kept.process is None:
            return
        kept.process.terminate()
        try:
            kept.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            kept.process.kill()
            kept.process.wait()

    def _stop_all(self) -> None:
        for kept in reversed(list(self._kept.values())):
            self._end(kept)

    def _write_state(self) -> None:
        processes = {
            name: {
                "pid": kept.process.pid if kept.process else None,
                "failures": kept.failures,
                "last_exit": kept.last_exit,
            }
            for name, kept in self._kept.items()
        }
        state = {"pid": os.getpid(), "processes": processes}
        write_atomically(self._folder / "state.json", json.dumps(state, indent=1).encode())


def read_state(folder: Path) -> dict[str, Any] | None:
    """What a running supervisor last wrote; None if none runs."""
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


def stop(folder: Path, *, timeout_s: float = 60.0) -> bool:
    """Tell the supervisor of a folder to stop, and wait for it; False if none runs.

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
            raise RunError(f"Expected process {state['pid']} to stop within {timeout_s:g} s, it runs on.")
        time.sleep(TICK_S)
    return True


def tail(logs: Path, *, follow: bool, lines: int = 50, as_json: bool = False) -> None:
    """Print the last lines of every log in a folder, and with `follow` what comes after, until interrupted.

    Args:
        logs: the folder.
        follow: go on.
        lines: of each file.
        as_json: every line an object: most are already, the others are what a library or a crash printed.
    """
    seen: dict[Path, int] = {}
    while True:
        for path in sorted(logs.glob("*.log")):
            content = path.read_bytes()
            start = seen.get(path)
            new = content if start is None else content[start:]
            kept = new.splitlines()[-lines:] if start is None else new.splitlines()
            for line in kept:
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
    """Called by a child: end when the supervisor that started it is gone, even if it was killed."""
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
    """Start a supervisor in the background; returns its process id once it runs.

    Raises:
        RunError: it ended at once; its log says why.
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
