"""The processes that `fedvault-server start` keeps running: SuperLink, gateway, page, and the run that is wanted."""

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

from server.flower.superlink import remove_database
from server.run_store.store import Store
from server.runs.queue import RunQueue
from server.settings import Home
from shared.environment import QUIET
from shared.processes.supervisor import Child, Supervisor

log = logging.getLogger(__name__)
RUN_LOGS = 20
"""Logs of so many runs are kept, of those written to last."""


def supervise(home: Home) -> None:
    """Keep the server's processes running until SIGTERM.

    Raises:
        RunError: the server runs already.
    """
    with Store(home.database()) as store:
        Supervisor(home.running, home.logs, SupervisedProcesses(home, store).wanted).run()


class SupervisedProcesses:
    """Decides which processes should run now."""

    def __init__(self, home: Home, store: Store) -> None:
        self._home, self._store = home, store
        settings = home.settings()
        self._limit, self._operators = settings.flower_database_limit_bytes, settings.operators
        self._driven = ""
        self._rotating, self._grown, self._warned, self._queue = False, True, False, RunQueue()

    def wanted(self) -> list[Child]:
        """Return what should run, with at most one run; runs that nobody wants any more are marked as stopped."""
        self._store.stop_unwanted()
        run_wanted = self._queue.next(self._store.open_runs(), time.monotonic())
        if run_wanted is not None:
            # queued while the SuperLink was being stopped: it starts again, and its files stay
            self._rotating, self._grown = False, True
        elif self._should_rotate():
            return self._always()
        children = [self._child("superlink"), *self._always()]
        if run_wanted is not None:
            if run_wanted != self._driven:
                forget_old_run_logs(self._home.logs, but=run_wanted)
            self._driven = run_wanted
            children.append(self._child("run", "--run", run_wanted, name=f"run-{run_wanted}"))
        return children

    def _always(self) -> list[Child]:
        """Return what runs beside the SuperLink: the gateway, and the page if operators reach it from elsewhere."""
        return [self._child("gateway"), *([self._child("page")] if self._operators else [])]

    def _should_rotate(self) -> bool:
        """Decide whether Flower's database is to be started afresh: it grows with every update and never shrinks.

        The first call takes the SuperLink out of what is wanted, so that it is stopped; the next one deletes its files.
        Without a run in between it is not started afresh again: an empty one may be above the limit, too.
        """
        if self._rotating:
            remove_database(self._home)
            log.info("Flower's database was started afresh.")
            self._rotating = self._grown = False
        elif flower_bytes(self._home) > self._limit:
            self._rotating = self._grown
            self._warn()
        return self._rotating

    def _warn(self) -> None:
        if not (self._grown or self._warned):
            self._warned = True
            log.warning(
                "flower_database_limit_bytes=%d is less than Flower's database holds when it is empty: it is started "
                "afresh after every run. Raise it in server.toml; 2 GiB is usual.",
                self._limit,
            )

    def _child(self, process: str, *options: str, name: str = "") -> Child:
        command = (sys.executable, "-m", "server", "process", process, *options, "--home", str(self._home.folder))
        return Child(name or process, command, QUIET)


def forget_old_run_logs(logs: Path, *, but: str, most: int = RUN_LOGS) -> None:
    """Delete the logs of all runs but the latest few; the run store keeps what happened in each."""
    by_run = dict[str, list[Path]]()
    with suppress(OSError):
        for path in sorted(logs.glob("run-*.log*"), key=lambda path: path.stat().st_mtime, reverse=True):
            by_run.setdefault(path.name.partition(".")[0], []).append(path)
        by_run.pop(f"run-{but}", None)
        for paths in list(by_run.values())[most - 1 :]:
            for path in paths:
                path.unlink()


def flower_bytes(home: Home) -> int:
    """Return the size of Flower's own database."""
    return sum(path.stat().st_size for path in home.flower.glob("state.db*")) if home.flower.exists() else 0
