"""Cut the server of an arm off in the middle of a round, once, and have it go on from its last checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

from server.rounds.observer import Observer
from shared.files import write_atomically
from simulations.results.result import ServerCrash

CRASH_FILE = "crash.json"


class CrashError(Exception):
    """The server of a simulation is cut off on purpose."""


class CrashingObserver:
    """Passes every event on, and cuts the server off at the first answer to a round.

    Args:
        observer: receives the events.
        number: of the round.
    """

    def __init__(self, observer: Observer, number: int) -> None:
        self._number = number
        self.asks, self.gone, self.finished = observer.asks, observer.gone, observer.finished
        self._answered = observer.answered

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Pass an answer on, or end the server."""
        self._answered(number, answered, asked, node=node, verdict=verdict)
        if number == self._number:
            raise CrashError(f"The server was cut off in round {number}, after {answered} of {asked} answers.")


def serve_through_crash(
    serve: Callable[[Observer], None], observer: Observer, folder: Path, latest: Callable[[], int], number: int
) -> None:
    """Run a server that is cut off once, and run it again; a crash that has happened does not happen again.

    Args:
        serve: runs the server to its end, or to what its observer raises.
        observer: receives the events.
        folder: of the arm; it keeps what happened.
        latest: names the round of the last checkpoint.
        number: of the round.
    """
    path = folder / CRASH_FILE
    if not path.exists():
        try:
            serve(CrashingObserver(observer, number))
        except CrashError:
            crash = ServerCrash(round=number, continued_after=latest())
            write_atomically(path, crash.model_dump_json().encode())
    serve(observer)


def crash_of(folder: Path) -> ServerCrash | None:
    """Read what happened to an arm's server; None if nothing did."""
    path = folder / CRASH_FILE
    return ServerCrash.model_validate(json.loads(path.read_text())) if path.exists() else None
