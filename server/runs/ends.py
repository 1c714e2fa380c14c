"""Decides whether another try can mend what ended a run's process.

| what ended it | what follows |
|---|---|
| settings, a damaged study or checkpoint | the run has failed at once |
| Flower, the run store or the disk is away | it is tried again, for as long as that lasts |
| anything else | it has failed after `TRIES` ends of the same kind in a row without a finished round |
"""

import errno
from collections.abc import Sequence

import httpx
from sqlalchemy.exc import SQLAlchemyError

from server.run_store.store import RESUMED
from server.run_store.values import Event
from shared.errors import DataError, FedVaultError, RunError, SettingsError

TRIES, LONGEST_REASON = 8, 300
STARTED, INTERRUPTED = "started", "interrupted"
PROGRESS = frozenset({"round", "finished", RESUMED})
KILLED = "its process was killed before it began, as by a lack of memory"
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


def needs_a_person(error: BaseException) -> bool:
    """Return true for what no retry mends."""
    return isinstance(error, SettingsError | DataError)


def mends_by_itself(error: BaseException) -> bool:
    """Return true for what concerns every run alike, and passes."""
    if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
        return True
    return isinstance(error, RunError | httpx.HTTPError | SQLAlchemyError | ConnectionError | TimeoutError)


def in_words(error: BaseException) -> str:
    """Return what ended a process, in one line."""
    if isinstance(error, FedVaultError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]


def ends_in_a_row(events: Sequence[Event]) -> tuple[int, str]:
    """Return how often a run's process has ended in the same way since its last progress, and in which.

    Args:
        events: of the run, in order.
    """
    count, reason, previous = 0, "", ""
    for event in events:
        end = ""
        if event.kind in PROGRESS:
            count, reason = 0, ""
        elif event.kind == INTERRUPTED and not event.body.get("mends_by_itself"):
            end = str(event.body.get("reason", ""))
        elif event.kind == STARTED and previous == STARTED:
            end = KILLED
        elif event.kind == STARTED and reason == KILLED and previous != INTERRUPTED:
            count, reason = 0, ""  # killed later than at its beginning: that is another end
        if end:
            count, reason = (count + 1 if end == reason else 1), end
        previous = event.kind
    return count, reason


def has_failed(events: Sequence[Event]) -> str:
    """Return why a run is not tried again; empty if it is."""
    count, reason = ends_in_a_row(events)
    return f"its process ended {count} times in a row in the same way: {reason}" if count >= TRIES else ""
