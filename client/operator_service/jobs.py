"""Jobs that take long, one after the other: looking at a study, and entering a decision about it."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from shared.errors import DataError, FedVaultError

log = logging.getLogger(__name__)
FRESH_S = 300.0
"""A look that is older than that is not shown any more."""
MOST_KEPT = 50
UNREADABLE = "The records cannot be read as node.toml declares them."
"""A message about records may quote one; the commands say it, at the node's own terminal."""

OnStage = Callable[[str, int, int], None]
Work = Callable[[OnStage], dict[str, Any]]


@dataclass
class Job:
    """One job, as plain values; it holds no record."""

    kind: str
    """`review`, `approve`, `reject` or `trial`."""
    since: float
    stage: str = "Waiting for its turn"
    done: int = 0
    total: int = 0
    answer: dict[str, Any] | None = field(default=None)
    """What came of it; an error has `error` and `hint`."""

    @property
    def plain(self) -> dict[str, Any]:
        """The job for the page."""
        where = {"kind": self.kind, "stage": self.stage, "done": self.done, "total": self.total}
        return where | {"answer": self.answer}


class Jobs:
    """The latest job of each study, worked on in one thread.

    Args:
        fresh_s: for so long after its end a job is shown.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, *, fresh_s: float = FRESH_S, now: Callable[[], float] = time.monotonic) -> None:
        self._fresh_s, self._now, self._lock, self._jobs = fresh_s, now, threading.Lock(), dict[str, Job]()
        self._closed = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="operator")

    def start(self, key: str, kind: str, work: Work) -> bool:
        """Begin a job unless one of this key is under way; returns whether it did."""
        with self._lock:
            running = self._jobs.get(key)
            if running is not None and running.answer is None:
                return False
            job = self._jobs[key] = Job(kind, self._now())
            for old in list(self._jobs)[: -MOST_KEPT or None]:
                if self._jobs[old].answer is not None:
                    del self._jobs[old]
        self._thread.submit(self._work, job, work)
        return True

    def latest(self, key: str) -> Job | None:
        """Return the latest job of a key, unless it ended a while ago."""
        with self._lock:
            job = self._jobs.get(key)
            stale = job is not None and job.answer is not None and self._now() - job.since > self._fresh_s
            return None if stale else job

    def clear(self, key: str) -> None:
        """Forget what came of a job that has ended."""
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.answer is not None:
                del self._jobs[key]

    @property
    def closed(self) -> bool:
        """True once the vault ends: what takes long then ends as well."""
        return self._closed.is_set()

    def close(self) -> None:
        """Begin no other job, and let the one that is worked on know."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work(self, job: Job, work: Work) -> None:
        def on_stage(stage: str, done: int = 0, total: int = 0) -> None:
            job.stage, job.done, job.total = stage, done, total

        try:
            job.answer = work(on_stage)
        except Exception as error:  # a job's thread has nobody above it: the page would wait for ever
            log.exception("What the operator's page asked for failed: %s", job.kind)
            job.answer = in_words(error)
        job.since = self._now()


def in_words(error: Exception) -> dict[str, Any]:
    """Return an error as the page may show it: in its own words, unless these may quote a record."""
    if isinstance(error, OSError) and error.strerror:  # its file's name may be a record's cell
        return {"error": f"The system refused: {error.strerror}.", "hint": "`fedvault-node logs` says where."}
    if isinstance(error, DataError) or not isinstance(error, FedVaultError):
        what = UNREADABLE if isinstance(error, DataError) else "Something went wrong that was not expected."
        return {"error": what, "hint": "`fedvault-node show RUN` and `fedvault-node logs` say what."}
    return {"error": str(error), "hint": error.hint}
