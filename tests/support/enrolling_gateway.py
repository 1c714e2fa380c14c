"""A gateway over TLS that enrols nodes and does nothing else, in a thread of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from server.certificate_authority import create, issue_server
from server.flower.control import Control
from server.gateway.enrolment import Enrolment
from server.gateway.process import tls_config
from server.run_store.store import Store
from server.settings import Home
from simulations.e2e.federation import free_port

HOST = "127.0.0.1"


class Flower:
    """Stands for Flower's Control API."""

    def nodes(self) -> list[Any]:
        return []

    def register(self, _public_key: str) -> int:
        return 1


@contextmanager
def enrolling(folder: Path) -> Iterator[tuple[Home, Store]]:
    """Serve a new federation's enrolment until the block ends."""
    home, port = Home(folder), free_port()
    create(home.keys, "test federation")
    issue_server(home.keys, [HOST])
    home.config.write_text(f'hosts = ["{HOST}"]\nport = {port}\n')
    with Store(home.database()) as store, serving(home, store):
        yield home, store


@contextmanager
def serving(home: Home, store: Store) -> Iterator[Enrolment]:
    """Serve a federation that is there already."""
    enrolment = Enrolment(store, home, cast(Control, Flower()))
    routes: Any = enrolment.routes()
    config = tls_config(Starlette(routes=routes), home.keys, host=HOST, port=home.settings().port)
    gateway = uvicorn.Server(config)
    thread = threading.Thread(target=gateway.run)
    thread.start()
    while not gateway.started:
        time.sleep(0.01)
    try:
        yield enrolment
    finally:
        gateway.should_exit = True
        thread.join()
