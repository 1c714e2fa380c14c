"""Released bytes, one file for each round: durable before the ledger says so, and sent again for ever."""

import hashlib
from pathlib import Path

from shared.files import sync_folder, write_private


class Outbox:
    """The folder beside a ledger that holds what its rounds released."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, run: str, number: int, released: bytes) -> None:
        """Make released bytes durable."""
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            sync_folder(self._folder.parent)
        write_private(self._file_of(run, number), released)

    def find(self, run: str, number: int) -> bytes | None:
        """Return what a round released; None if nothing was kept."""
        file = self._file_of(run, number)
        return file.read_bytes() if file.exists() else None

    def _file_of(self, run: str, number: int) -> Path:
        # a run's name comes from the server and may not become a path
        return self._folder / hashlib.sha256(f"{run}\0{number}".encode()).hexdigest()
