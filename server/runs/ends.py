"""Decides whether another try can mend what ended a run's process.

| what ended it | what follows |
|---|---|
| settings, a damaged study or checkpoint | the run has failed at once |
| Flower, the run store or the network is away, a disk is full | it is tried again, for as long as that lasts |
| a call that Flower refuses, or fails at for a minute | it has failed after `TRIES` in a row, in whatever words |
| any other error, or a crash without one | it has failed after `TRIES` of the same kind in a row |
| a kill from outside, once it has begun | it is tried again: that says nothing about the run |
| a kill before it begins, `TRIES` times in a row | it is tried again, and steps aside for other runs |

In a row means without a finished round in between.
"""

import errno
import signal
from collections.abc import Sequence

import httpx
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionInTimeError

from server.flower.patience import FlowerAwayError, FlowerFaultError, FlowerRefusedError
from server.run_store.store import RESUMED
from server.run_store.values import Event
from shared.errors import DataError, FedVaultError, SettingsError

TRIES, LONGEST_REASON = 8, 300
STARTED, INTERRUPTED = "started", "interrupted"
PROGRESS = frozenset({"round", "finished", RESUMED})
REFUSED_BY_FLOWER = "refused by Flower"
KILLED = f"its process was killed {TRIES} times in a row before it began, as by a lack of memory"
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
OF_ITS_OWN = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS})
"""Signals by which a process ends through what it does itself."""
AWAY = (
    FlowerAwayError,
    httpx.TransportError,
    OperationalError,
    InterfaceError,
    InternalError,
    NoConnectionInTimeError,
    ConnectionError,
    TimeoutError,
)


def needs_a_person(error: BaseException) -> bool:
    """Return true for what no retry mends."""
    return isinstance(error, SettingsError | DataError)


def mends_by_itself(error: BaseException) -> bool:
    """Return true for what concerns every run alike, and passes."""
    away = isinstance(error, AWAY) and not isinstance(error, FlowerFaultError)
    return away or (isinstance(error, OSError) and error.errno in DISK_IS_FULL)


def in_words(error: BaseException) -> str:
    """Return what ended a process, in one line."""
    if isinstance(error, FedVaultError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]


def as_event(error: BaseException) -> dict[str, object]:
    """Return the body of the event that an error ended a process."""
    body: dict[str, object] = {"reason": in_words(error), "mends_by_itself": mends_by_itself(error)}
    return body | ({"kind": REFUSED_BY_FLOWER} if isinstance(error, FlowerRefusedError | FlowerFaultError) else {})


def ends_in_a_row(events: Sequence[Event]) -> tuple[int, str]:
    """Return how often a run's process has ended in the same way since its last progress, and in which.

    Args:
        events: of the run, in order.
    """
    count, kind, reason, reported = 0, "", "", True
    for event in events:
        end, end_kind = "", ""
        if event.kind in PROGRESS:
            count, kind, reason = 0, "", ""
        elif event.kind == INTERRUPTED:
            reported = True
            if not event.body.get("mends_by_itself"):
                end = str(event.body.get("reason", ""))
                end_kind = str(event.body.get("kind", end))
        elif event.kind == STARTED:
            if not reported and _is_its_own(exit_code := event.body.get("after_exit")):
                end = end_kind = f"it ended with exit code {exit_code} and no error"
            reported = False
        if end:
            count, kind, reason = (count + 1 if end_kind == kind else 1), end_kind, end
    return count, reason


def has_failed(events: Sequence[Event]) -> str:
    """Return why a run is not tried again; empty if it is."""
    count, reason = ends_in_a_row(events)
    return f"its process ended {count} times in a row in the same way: {reason}" if count >= TRIES else ""


def steps_aside(events: Sequence[Event]) -> str:
    """Return why a run lets others go first while it is tried again; empty if it does not.

    Args:
        events: of the run, in order; the last one is the start of the process that asks.
    """
    tail = [event.kind for event in events[-TRIES - 1 :]]
    return KILLED if tail == [STARTED] * (TRIES + 1) else ""


def _is_its_own(exit_code: object) -> bool:
    return isinstance(exit_code, int) and (exit_code >= 0 or -exit_code in OF_ITS_OWN)
