"""Applications behind real sockets, each in a thread of this process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

HOST = "127.0.0.1"
WITHIN_S = 10.0


@contextmanager
def served(config: uvicorn.Config) -> Iterator[uvicorn.Server]:
    """Serve until the block ends."""
    with serving(uvicorn.Server(config), None) as server:
        yield server


@contextmanager
def serving(server: uvicorn.Server, sockets: list[socket.socket] | None) -> Iterator[uvicorn.Server]:
    """Serve on sockets that listen already, until the block ends; None: on its settings' own."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    end = time.monotonic() + WITHIN_S
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


def plain(application: Any, port: int) -> uvicorn.Config:
    """Return uvicorn's settings for an application without TLS, on loopback."""
    return uvicorn.Config(application, host=HOST, port=port, log_config=None, ws="none", timeout_graceful_shutdown=1)
