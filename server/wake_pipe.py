"""A pipe in the server's folder: a run writes there for whom it has just stored a message, and the gateway reads it.

A number that is lost costs a node nothing but time: it also asks by itself, now and then.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

NUMBERS_AT_ONCE = 100
"""In one write; so many are written whole or not at all (PIPE_BUF)."""
READ_BYTES = 2**16


def pipe_of(running: Path) -> Path:
    """Return the path of the pipe in the folder of what runs."""
    return running / "wake.pipe"


def open_pipe(path: Path) -> int:
    """Make the pipe if there is none, and return a descriptor that reads it without ever waiting."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # for writing as well: it never ends, whoever closes the other end
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def tell(path: Path, nodes: Iterable[int]) -> None:
    """Write for whom there is something; nobody is told if no gateway runs, or if it does not keep up."""
    numbers = [f"{node}\n" for node in nodes]
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for start in range(0, len(numbers), NUMBERS_AT_ONCE):
            os.write(pipe, "".join(numbers[start : start + NUMBERS_AT_ONCE]).encode())
    except OSError:
        pass
    finally:
        os.close(pipe)


def written_to(pipe: int) -> list[int]:
    """Return the numbers that were written since the last time."""
    try:
        return [int(number) for number in os.read(pipe, READ_BYTES).split()]
    except (BlockingIOError, ValueError):
        return []
