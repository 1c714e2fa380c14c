"""How commands show time: bars, a status that is drawn again, and what a command is doing while it takes long."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BAR_CELLS = 20
QUIET_FOR_S, SAY_AGAIN_S, REDRAW_S = 2.0, 10.0, 2.0
CLEAR = "\x1b[H\x1b[2J"


def bar(done: int, total: int) -> str:
    """Return how much of something is done as a bar of text."""
    filled = BAR_CELLS if total <= 0 else min(BAR_CELLS, BAR_CELLS * max(0, done) // total)
    return f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}]"


def watched(lines: Callable[[], list[str]], *, every_s: float = REDRAW_S, times: int | None = None) -> None:
    """Print lines, and draw them again until Ctrl-C; what is no terminal gets them one below the other.

    Args:
        lines: gathers them anew each time.
        every_s: pause between two drawings.
        times: ends after so many drawings; None: never.
    """
    drawn = 0
    with suppress(KeyboardInterrupt):
        while times is None or drawn < times:
            if drawn:
                time.sleep(every_s)
            fresh = lines()
            print((CLEAR if sys.stdout.isatty() else "") + "\n".join(fresh), flush=True)  # noqa: T201 - a command speaks
            drawn += 1


class Activity:
    """Says on stderr what a command does, once it has taken two seconds and then now and again."""

    def __init__(self, what: str) -> None:
        self._what, self._since, self._lock = what, time.monotonic(), threading.Lock()
        self._done, self._total = 0, 0

    def now(self, what: str, done: int = 0, total: int = 0) -> None:
        """Receive what the command does from now on, and how many of how many steps are done, if they are counted."""
        with self._lock:
            self._what, self._done, self._total = what, done, total

    def line(self) -> str:
        """Return what is being done, how much of it is done, and for how long the command has run."""
        with self._lock:
            progress = f" {bar(self._done, self._total)} {self._done} of {self._total}" if self._total else ""
            return f"{self._what} …{progress} ({time.monotonic() - self._since:.0f} s)"


@contextmanager
def saying(what: str, *, quiet_for_s: float = QUIET_FOR_S, again_s: float = SAY_AGAIN_S) -> Iterator[Activity]:
    """Say what a command is doing while it takes long; a quick one says nothing.

    A terminal has one line that changes; a file gets a line now and again.

    Args:
        what: it begins with, such as "Reading the records of 'ward'".
        quiet_for_s: nothing is said before.
        again_s: pause between two lines in a file.
    """
    activity, over = Activity(what), threading.Event()
    on_terminal = sys.stderr.isatty()

    def speak() -> None:
        pause = quiet_for_s
        while not over.wait(pause):
            line = activity.line()
            start, end = ("\r\x1b[K", "") if on_terminal else ("", "\n")
            print(start + line, end=end, file=sys.stderr, flush=True)  # noqa: T201
            pause = 1.0 if on_terminal else again_s
        if on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield activity
    finally:
        over.set()
        speaker.join()
