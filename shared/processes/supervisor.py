"""Keep processes running: start them, restart them when they die, stop them in order.

A folder has one supervisor. Its children end when it is gone, however it ended: each one checks who its parent is.

| what happens | what the supervisor does |
|---|---|
| a child ends | starts it again, after a pause that grows |
| a child cannot be started | tries again as if it had ended |
| what is wanted cannot be found out | keeps to what was wanted last |
| its log cannot be opened | starts the child without one |
| its state cannot be written | goes on without: `status` shows the one before |
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
from typing import BinaryIO, TextIO

from shared.errors import RunError
from shared.files import write_atomically
from shared.processes.faults import Faults
from shared.processes.log_files import keep_small

FIRST_PAUSE_S, LONGEST_PAUSE_S, STABLE_S = 0.5, 60.0, 60.0
TICK_S, GRACE_S = 0.2, 15.0
ASK_EVERY_S = 1.0
"""Pause between two questions what is wanted; the answer may lie in a database."""
LOGS_EVERY_S = 1.0
ANOTHER_FOR_S = 1.0
"""Whoever asks whether a supervisor runs holds its lock for a moment."""
PARENT, LAST_EXIT = "FEDVAULT_PARENT", "FEDVAULT_LAST_EXIT"


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
    Guarantee: a supervisor outlives its database, a full disk and a machine without memory for another process.

    Args:
        folder: holds the lock, the state that `status` shows, and the process id that `stop` signals.
        logs: folder with one file per child.
        wanted: returns the processes that should run now, in the order of starting. It may fail, and may take its time:
            it is called in a thread, a second after its last answer was carried out.
    """

    def __init__(self, folder: Path, logs: Path, wanted: Callable[[], Sequence[Child]]) -> None:
        self._folder, self._logs, self._wanted = folder, logs, wanted
        self._watched: dict[str, Watched] = {}
        self._faults, self._asking_faults = Faults(), Faults()
        self._stop, self._carried_out = threading.Event(), threading.Event()
        self._answer: Sequence[Child] | None = None
        self._look_at_logs, self._unwritten = 0.0, False

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT.

        Raises:
            RunError: another supervisor has this folder.
        """
        for path in (self._folder, self._logs):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "supervisor.lock").open("a") as lock:
            _lock(lock, self._folder)
            (self._folder / "state.json").unlink(missing_ok=True)
            with self._faults.tolerated("Writing down the supervisor's process id", "`stop` will not find it."):
                lock.truncate(0)
                print(os.getpid(), file=lock, flush=True)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stop.set())
            threading.Thread(target=self._keep_asking, daemon=True).start()
            try:
                while not self._stop.is_set():
                    with self._faults.tolerated("Looking after the processes", "It is tried again."):
                        self.tick()
                    self._stop.wait(TICK_S)
            finally:
                self._stop_all()
                lock.truncate(0)
                (self._folder / "state.json").unlink(missing_ok=True)

    def _keep_asking(self) -> None:
        """Ask what is wanted, at most once a second; a question that takes long holds nothing else up."""
        while not self._stop.is_set():
            self.ask()
            self._carried_out.wait()
            self._stop.wait(ASK_EVERY_S)

    def ask(self) -> None:
        """Find out what is wanted, for the next tick."""
        with self._asking_faults.tolerated("Finding out what should run", "What ran goes on."):
            self._answer = list(self._wanted())
        self._carried_out.clear()

    def tick(self) -> None:
        """Stop children that are not wanted any more, notice those that died, and start those whose pause is over."""
        answer, now, changed = self._answer, time.monotonic(), False
        if answer is None:
            self._carried_out.set()
            return
        wanted = {child.name: child for child in answer}
        for name in [name for name in self._watched if name not in wanted]:
            self._end(self._watched.pop(name))
            changed = True
        for name, child in wanted.items():
            watched = self._watched.setdefault(name, Watched(child))
            if watched.process is not None and watched.process.poll() is not None:
                self._died(watched, now, watched.process.returncode)
                changed = True
            if watched.process is None and now >= watched.not_before:
                watched.child = child
                self._start(watched, now)
                changed = True
        self._unwritten |= changed
        if self._unwritten:
            with self._faults.tolerated("Writing down the supervisor's state", "`status` shows the one before."):
                self._write_state()
                self._unwritten = False
        if now >= self._look_at_logs:
            self._look_at_logs = now + LOGS_EVERY_S
            with self._faults.tolerated("Putting full logs aside", "They grow."):
                keep_small(self._logs)
        if answer is self._answer:
            self._carried_out.set()

    def _start(self, watched: Watched, now: float) -> None:
        watched.started, watched.since = now, datetime.now(UTC).isoformat(timespec="seconds")
        with self._faults.tolerated(f"Starting {watched.child.name}", "It is tried again."):
            watched.process = self._started(watched.child, watched.last_exit)
        if watched.process is None:
            self._died(watched, now, None)

    def _started(self, child: Child, last_exit: int | None) -> "subprocess.Popen[bytes]":
        of_ours = {PARENT: str(os.getpid()), LAST_EXIT: "" if last_exit is None else str(last_exit)}
        environment = {**os.environ, **child.environment, **of_ours}
        with self._log_of(child) as log:
            # a group of its own: Ctrl-C reaches the supervisor alone, which then stops its children in order
            return subprocess.Popen(  # noqa: S603 - our own commands
                child.command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,
            )

    def _log_of(self, child: Child) -> BinaryIO:
        with self._faults.tolerated(f"Opening the log of {child.name}", "It runs without one."):
            return (self._logs / f"{child.name}.log").open("ab")
        return Path(os.devnull).open("ab")

    def _died(self, watched: Watched, now: float, exit_code: int | None) -> None:
        watched.last_exit, watched.process = exit_code, None
        watched.failures = 1 if now - watched.started > STABLE_S else watched.failures + 1
        watched.not_before = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(watched.failures - 1, 20))

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


def _lock(lock: TextIO, folder: Path) -> None:
    give_up = time.monotonic() + ANOTHER_FOR_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > give_up:
                raise RunError(f"Expected no other supervisor in {folder}, got one that runs.") from None
            time.sleep(TICK_S)
        else:
            return


def last_exit() -> int | None:
    """Return the exit code of the process in whose place this one was started, negative for a signal; None if unknown.

    A child calls this.
    """
    code = os.environ.get(LAST_EXIT, "")
    return int(code) if code.removeprefix("-").isdecimal() else None


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
