"""Tells a command what runs in a folder: there, not there, or another user's; and stops it."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.errors import AccessError, RunError

POLL_S = 0.2
STARTS_WITHIN_S = 60.0
"""A process this young that does not answer yet is starting up: loading its libraries takes seconds."""
EXIT_STARTING = 10
"""Exit code of `status --check` while something is starting up, which is no error."""
EXIT_BY_STATE = {"runs": 0, "stopped": 1, "troubled": RunError.exit_code, "starting": EXIT_STARTING}
"""Exit codes of `status --check`, by state."""


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state that a running supervisor last wrote; None if none runs.

    Raises:
        AccessError: the folder is another user's, so nobody can tell.
    """
    try:
        with (folder / "supervisor.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _state(folder) | _process_id(lock.read())
    except PermissionError as error:
        raise AccessError.of(error) from None
    except OSError:
        pass
    return None


def require_none(folder: Path) -> None:
    """Return if no supervisor runs in a folder.

    Raises:
        AccessError: the folder is another user's.
        RunError: one runs.
    """
    if read_state(folder) is not None:
        raise RunError(f"Expected no other supervisor in {folder}, got one that runs.")


def _state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {"pid": None, "processes": {}}
    return state


def _process_id(lock: str) -> dict[str, int]:
    """The supervisor's number as the lock holds it, which is there on a full disk as well."""
    return {"pid": int(lock)} if lock.strip().isdecimal() else {}


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
    """Return a sentence for every child that has ended by itself or could not be started, and how often.

    Args:
        processes: as `read_state` describes them, by name.
        logs: the command that shows their logs.
    """
    lines = []
    for name, process in processes.items():
        if process["failures"]:
            state = "runs again" if process["pid"] else "is being started again"
            times = "once" if process["failures"] == 1 else f"{process['failures']} times in a row"
            ended = f"ended by itself {times} (exit code {process['last_exit']})"
            if process["last_exit"] is None:
                ended = f"could not be started {times}"
            lines.append(f"{name} {ended} and {state}: see {logs}.")
    return lines


def stop(folder: Path, *, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor of a folder and wait until it has ended; return False if none runs.

    Raises:
        AccessError: it is another user's.
        RunError: it does not stop.
    """
    state = read_state(folder)
    if state is None:
        return False
    if state["pid"]:
        try:
            os.kill(state["pid"], signal.SIGTERM)
        except PermissionError:
            raise AccessError(
                f"Expected a process that this user may stop, {state['pid']} is another user's.",
                hint="Type this as the user who started it.",
            ) from None
        except ProcessLookupError:
            pass  # it ended by itself meanwhile
    give_up = time.monotonic() + timeout_s
    while read_state(folder) is not None:
        if time.monotonic() > give_up:
            raise RunError(f"Expected process {state['pid']} to stop within {timeout_s:g} s, it still runs.")
        time.sleep(POLL_S)
    return True


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
        time.sleep(POLL_S)
    raise RunError("Expected it to start in the background, it ended.", hint=f"Its log: {log}")
