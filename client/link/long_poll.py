"""Waits at the server beside everything else that the link does, and says when there is something to fetch."""

import logging
import threading
import time
from collections.abc import Callable

import httpx

log = logging.getLogger(__name__)
PAUSE_S, LOOK_S = 2.0, 0.25
QUICK_S, MOST_QUICK = 0.1, 20
"""After so many answers in a row that came so quickly, the server is asked seldom: it lets nobody wait."""


class NoWaiting(Exception):  # noqa: N818 - an answer of the server, not a failure of ours
    """The server does not let nodes wait: it is older, or something on the way does not pass it on."""


class LongPoll:
    """A thread that waits until it is over.

    Args:
        ask: waits at the server once; returns whether there is something.
        over: ends it, with the connection.
    """

    def __init__(self, ask: Callable[[], bool], over: threading.Event) -> None:
        self._ask, self._over, self._something = ask, over, threading.Event()
        self.works = False
        """Whether the server answered the last wait. As long as it does, asking again and again is not needed."""
        self._thread = threading.Thread(target=self._keep_asking, daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def wait(self, most_s: float, ended: Callable[[], bool]) -> None:
        """Return as soon as there may be something to fetch, after this time at the latest, or when `ended` is true."""
        until = time.monotonic() + most_s
        while not ended() and time.monotonic() < until and self.works:
            if self._something.wait(LOOK_S):
                break
        self._something.clear()

    def _keep_asking(self) -> None:
        quick = 0
        while not self._over.is_set():
            asked = time.monotonic()
            try:
                if self._ask():
                    self._something.set()
                self.works = True
            except NoWaiting as error:
                self.works = False
                log.info("The server does not let nodes wait (%s): it is asked again and again.", error)
                return
            except (httpx.HTTPError, OSError, RuntimeError):  # RuntimeError: the connection was closed meanwhile
                self.works = False
                self._over.wait(PAUSE_S)
            quick = quick + 1 if time.monotonic() - asked < QUICK_S else 0
            if quick > MOST_QUICK:
                self._over.wait(PAUSE_S)
