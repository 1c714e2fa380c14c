"""Sends a run's curves beside the run: it never waits for them, and nothing that happens there ends it."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)
PATIENCE_S = 60.0


class InBackground:
    """Calls a sender after rounds, in a thread of its own; a round that comes while it sends is sent next.

    Guarantee: a run's rounds take no longer and end no other way because of where its curves go.

    Args:
        send: sends everything that is new; None sends nothing.
    """

    def __init__(self, send: Callable[[], object] | None) -> None:
        self._send, self._news, self._ends = send, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="curves") if send else None
        if self._thread is not None:
            self._thread.start()

    def soon(self) -> None:
        """Say that there is something new."""
        self._news.set()

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Send what is left, and wait no longer than this for it."""
        self._ends.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(patience_s)
            if self._thread.is_alive():
                log.warning("The curves of this run are not all sent; fedvault-server track sends the rest.")

    def __enter__(self) -> "InBackground":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        assert self._send is not None  # noqa: S101 - the thread exists only with a sender
        while True:
            self._news.wait()
            self._news.clear()
            ends = self._ends.is_set()
            try:
                self._send()
            except Exception as error:  # a run is worth more than its curves
                log.warning("The curves of this run could not be sent (%s: %s).", type(error).__name__, error)
            if ends:
                return
