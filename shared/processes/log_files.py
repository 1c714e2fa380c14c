"""Logs of processes that run for years: files that stay below a size, and read from their end.

A child writes to a file that its supervisor opened for appending, and keeps it open. So a full file is copied and then
emptied: the child goes on at its new end, is never held up, and need not know. What it writes between the copy's last
byte and the emptying is lost, which is a line now and then in ten MiB.
"""

import json
import shutil
import time
from pathlib import Path

from shared.errors import FedVaultError
from shared.files import require_access

LOG_BYTES, OLD_LOGS = 10 * 2**20, 3
"""A log is put aside once it is this large; so many old ones are kept."""
TAIL_BYTES = 2**18
"""The most that is read of one file at a time."""
FOLLOW_S = 1.0


def keep_small(folder: Path, *, log_bytes: int = LOG_BYTES, old_logs: int = OLD_LOGS) -> None:
    """Put aside the logs of a folder that have grown too large, as `NAME.log.1`, the newest, to `NAME.log.3`.

    On a full disk a log is emptied without a copy: old lines are worth less than the room.

    Guarantee: the logs of a process never hold more than four times their limit for long.

    Raises:
        OSError: a log can be neither copied nor emptied.
    """
    for path in folder.glob("*.log"):
        if path.stat().st_size <= log_bytes:
            continue
        old_log(path, old_logs).unlink(missing_ok=True)
        for number in reversed(range(1, old_logs)):
            if old_log(path, number).exists():
                old_log(path, number).replace(old_log(path, number + 1))
        with path.open("r+b") as file:
            try:
                with old_log(path, 1).open("xb") as copy:
                    shutil.copyfileobj(file, copy)  # to the very end: what comes while it copies is copied as well
            except OSError:
                old_log(path, 1).unlink(missing_ok=True)
            file.truncate(0)


def old_log(path: Path, number: int) -> Path:
    """Return where a log's older part lies; 1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def tail(logs: Path, *, follow: bool, lines: int = 50, as_json: bool = False, start: str = "start") -> None:
    """Print the last lines of every log in a folder; with `follow`, also new lines, until interrupted.

    Args:
        logs: the folder.
        follow: keep printing new lines.
        lines: how many of each file.
        as_json: print each line as an object. Most are objects already; the others come from a library or a crash.
        start: the command that makes logs.

    Raises:
        AccessError: the folder is another user's.
        FedVaultError: there are no logs, and none to wait for.
    """
    require_access(logs)
    if not follow and not any(logs.glob("*.log")):
        raise FedVaultError(f"Expected logs in {logs}, got none.", hint=f"Nothing was started here so far: {start}")
    positions: dict[Path, int] = {}
    while True:
        for path in sorted(logs.glob("*.log")):
            recent, positions[path] = _news(path, positions[path]) if path in positions else _last(path, lines)
            for line in recent:
                shown = line.decode(errors="replace")
                print(_as_object(shown, path.stem) if as_json else shown)  # noqa: T201 - a command speaks
        if not follow:
            return
        time.sleep(FOLLOW_S)


def _last(path: Path, count: int) -> tuple[list[bytes], int]:
    """The last lines of a log and of the part that was put aside last, and where new lines will begin."""
    lines, end = _end_of(path)
    if len(lines) < count and old_log(path, 1).exists():
        lines = _end_of(old_log(path, 1))[0] + lines
    return lines[-count:], end


def _end_of(path: Path) -> tuple[list[bytes], int]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        lines = file.read(TAIL_BYTES).splitlines()
        return lines[1:] if size > TAIL_BYTES and len(lines) > 1 else lines, size  # the first one is cut


def _news(path: Path, position: int) -> tuple[list[bytes], int]:
    """The lines that came after a position, and where the next ones will begin."""
    lines = list[bytes]()
    if path.stat().st_size < position:
        # it was put aside meanwhile, with what came before that
        if old_log(path, 1).exists():
            lines, position = _after(old_log(path, 1), position)
        position = 0
    news, position = _after(path, position)
    return lines + news, position


def _after(path: Path, position: int) -> tuple[list[bytes], int]:
    with path.open("rb") as file:
        file.seek(position)
        return file.read(LOG_BYTES).splitlines(), file.tell()


def _as_object(line: str, process: str) -> str:
    try:
        if isinstance(json.loads(line), dict):
            return line
    except ValueError:
        pass
    return json.dumps({"process": process, "message": line}, ensure_ascii=False)
