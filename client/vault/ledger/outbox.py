"""Released bytes, one file for each round: durable before the ledger says so, and sent again to whoever may ask.

| whose bytes | how long they are kept |
|---|---|
| of the newest rounds of a run that may go on | for as long as it may |
| of the newest rounds of a run that is over | three months: its server may be away |
| of all other rounds | a week: a server that was restored from a backup asks for them again |
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from shared.files import sync_folder, write_private

NEWEST_ROUNDS = 3
"""As many as a server keeps checkpoints of: after a crash it asks for one of these."""
DAY_S = 24 * 3600.0
KEPT_S, NEWEST_KEPT_S = 7 * DAY_S, 90 * DAY_S


class Outbox:
    """The folder beside a ledger that holds what its rounds released.

    Guarantee: what a crash of node or server may have asked again is never deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, run: str, number: int, released: bytes) -> None:
        """Make released bytes durable."""
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            sync_folder(self._folder.parent)
        write_private(self._file_of(run, number), released)

    def find(self, run: str, number: int) -> bytes | None:
        """Return what a round released; None if nothing was kept, or not any more."""
        file = self._file_of(run, number)
        return file.read_bytes() if file.exists() else None

    def forget(self, run: str, number: int) -> None:
        """Delete what a round would have released, had its run not ended before."""
        self._file_of(run, number).unlink(missing_ok=True)

    def newest(self, attempts: Mapping[str, Iterable[int]]) -> set[Path]:
        """Return the files of each run's newest rounds."""
        return {
            self._file_of(run, number)
            for run, numbers in attempts.items()
            for number in sorted(numbers)[-NEWEST_ROUNDS:]
        }

    def newest_of_this_week(self, attempts: Mapping[str, Iterable[int]], now: float) -> set[Path]:
        """Return those of them that are there and were released within a week.

        Args:
            attempts: the rounds of each run that were begun.
            now: seconds since 1970, as the files have them.
        """
        return {file for file in self.newest(attempts) if file.exists() and now - file.stat().st_mtime < KEPT_S}

    def prune(self, attempts: Mapping[str, Iterable[int]], going_on: Collection[str], now: float) -> None:
        """Delete what nobody asks for any more; a file that cannot be deleted is tried again later.

        Args:
            attempts: the rounds of each run that were begun.
            going_on: runs that may have further rounds.
            now: seconds since 1970, as the files have them.
        """
        ages = dict[Path, float]()
        with suppress(OSError):  # an update is committed already, and what cannot be looked at now is pruned later
            ages = {file: now - file.stat().st_mtime for file in self._folder.glob("*")}
        old = [file for file, age_s in ages.items() if age_s > KEPT_S]
        if not old:
            return
        in_use = self.newest({run: numbers for run, numbers in attempts.items() if run in going_on})
        newest = self.newest(attempts)
        for file in old:
            if file not in in_use and (file not in newest or ages[file] > NEWEST_KEPT_S):
                with suppress(OSError):
                    file.unlink()

    def _file_of(self, run: str, number: int) -> Path:
        # a run's name comes from the server and may not become a path
        return self._folder / hashlib.sha256(f"{run}\0{number}".encode()).hexdigest()
