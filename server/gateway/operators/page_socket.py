"""The socket of the server's page: this user's alone, and reached by a short name however deep the folder lies."""

import os
import socket
from pathlib import Path

from shared.files import private_folder

LONGEST_PATH = 107
"""Bytes that the address of a UNIX socket may have."""
WAITING = 64


def page_socket(running: Path) -> Path:
    """Return the path of the socket in the folder of what runs."""
    return running / "page.sock"


def short_name(path: Path) -> str:
    """Return a name for a socket; a long one goes by its folder, which is made, and which this process keeps open."""
    private_folder(path.parent)
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return str(path)
    return f"/proc/self/fd/{os.open(path.parent, os.O_PATH | os.O_CLOEXEC)}/{path.name}"


def listening_on(path: Path) -> socket.socket:
    """Return a socket that listens at a path; whatever an earlier process left there is replaced.

    Guarantee: the server's page for other machines listens on a socket of the server's user alone, and on no port.
    """
    name = short_name(path)
    path.unlink(missing_ok=True)
    opened, old = socket.socket(socket.AF_UNIX), os.umask(0o177)
    try:
        opened.bind(name)
    finally:
        os.umask(old)
    opened.listen(WAITING)
    return opened
