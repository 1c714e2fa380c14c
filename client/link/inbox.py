"""Messages that are not answered yet: on disk before the server hears that they arrived, gone when the answer is there.

A link that is killed finds them again; the vault gives the same bytes for the same round, so nothing is lost or trained
twice.
"""

import errno
import zipfile
from pathlib import Path

from client.link.fleet import Received
from shared.files import private_file, private_folder


class Inbox:
    """One zip file per message: its run's number as the comment, its objects as members."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, received: Received) -> None:
        """Make a message durable."""
        private_folder(self._folder)
        path = self._path(received)
        with private_file(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
            archive.comment = str(received.run_id).encode()
            for name, content in received.objects.items():
                archive.writestr(name, content)

    def oldest(self) -> Received | None:
        """Return the message that waits longest; one that is damaged is dropped.

        Raises:
            OSError: the machine cannot read it now, which says nothing about the message.
        """
        for path in sorted(self._folder.glob("*.message"), key=lambda path: path.stat().st_mtime_ns):
            try:
                with zipfile.ZipFile(path) as archive:
                    objects = {name: archive.read(name) for name in archive.namelist()}
                    return Received(path.stem, int(archive.comment), objects)
            except Exception as error:
                if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: it points beyond its own bytes
                    raise
                path.unlink()
        return None

    def done(self, received: Received) -> None:
        """Forget a message: it is answered, or nobody waits for the answer any more."""
        self._path(received).unlink(missing_ok=True)

    def _path(self, received: Received) -> Path:
        if not received.message_id.isalnum():
            raise ValueError(f"Expected a message id of letters and digits, got {received.message_id!r}.")
        return self._folder / f"{received.message_id}.message"
