"""Tries a server's ports before anything is started: a port that cannot be used is the operator's to change."""

import errno
import socket
import time
from contextlib import ExitStack

from server.health import LOOPBACK, Answer, answers
from server.settings import Home, ServerSettings
from shared.errors import SettingsError

PATIENCE_S, LEAVES_WITHIN_S, POLL_S = 20.0, 3.0, 0.5
"""For processes of this server whose supervisor was killed: they leave, and stop answering a little before that."""

ADDRESS_OF = {"port": "listen", "metrics_port": "metrics_listen"}
"""The key of the address, by that of the port; the SuperLink's is no setting."""


class PortInUse(SettingsError):  # noqa: N818 - says what it is
    """Somebody listens on a port of this server."""


def require_free_ports(home: Home, *, patience_s: float = PATIENCE_S) -> None:
    """Open every port of server.toml for a moment.

    Raises:
        SettingsError: one cannot be opened; the message names its key.
    """
    settings, give_up = home.settings(), time.monotonic() + patience_s
    wait_until = 0.0
    while True:
        try:
            return _open_all(settings)
        except PortInUse:
            if Answer.OURS in answers(home).values():
                wait_until = min(give_up, time.monotonic() + LEAVES_WITHIN_S)
            if time.monotonic() >= wait_until:
                raise
            time.sleep(POLL_S)


def _open_all(settings: ServerSettings) -> None:
    with ExitStack() as opened:
        for key, host, port in _ports(settings):
            try:
                opened.enter_context(_listening(host, port))
            except OSError as error:
                raise _error(error, key, host, port) from None


def _ports(settings: ServerSettings) -> list[tuple[str, str, int]]:
    ports = [
        ("port", settings.listen, settings.port),
        ("superlink_port", LOOPBACK, settings.superlink_port),
        ("metrics_port", settings.metrics_listen, settings.metrics_port),
    ]
    return [(key, host, port) for key, host, port in ports if port]


def _listening(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((str(address[0]), port), family=family)


def _error(error: OSError, key: str, host: str, port: int) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        hint = f"Stop that program, or change {key} in server.toml."
        if key == "port":
            hint += " Nodes know the port from their invites."
        return PortInUse(f"Expected a free port, got {key}={port}, where another program listens.", hint=hint)
    if error.errno == errno.EACCES:
        return SettingsError(
            f"Expected a port that this user may open, got {key}={port}.", hint=f"Change {key} in server.toml."
        )
    address = ADDRESS_OF.get(key, key)
    return SettingsError(
        f"Expected an address of this machine, got {address}={host!r}: {error.strerror}.",
        hint=f"Change {address} in server.toml.",
    )
