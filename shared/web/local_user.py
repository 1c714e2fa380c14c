"""Who is at the other end of a connection within this machine: cookies go to every port, whoever listens there."""

import socket
import sys
from contextlib import suppress
from pathlib import Path

SOCKETS = Path("/proc/net/tcp")
ESTABLISHED = "01"


def user_of(client: tuple[str, int] | None, server: tuple[str, int] | None) -> int | None:
    """Return the number of the user whose process opened a connection; None where this machine does not say.

    Linux says so of connections within one network namespace: not of one that comes into a container.

    Args:
        client: address and port at the other end.
        server: address and port here.
    """
    with suppress(OSError, ValueError, IndexError):
        if client is not None and server is not None:
            ends = [_written(*client), _written(*server)]
            for line in SOCKETS.read_text().splitlines()[1:]:
                fields = line.split()
                # of a socket that its process has closed, no user is known
                if fields[1:3] == ends and fields[3] == ESTABLISHED:
                    return int(fields[7])
    return None


def _written(host: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
