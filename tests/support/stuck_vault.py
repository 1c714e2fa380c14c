"""A vault behind a socket that finishes some steps of a round, a little apart, and then none."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from client.link.vault_client import VaultClient
from client.vault_api._generated import vault_pb2, vault_pb2_grpc
from shared.protocol.messages import TrainTask

TASK = TrainTask("s" * 64, "run", 3, np.zeros(2, np.float32))
STEPS, APART_S = 4, 0.2


class StuckVault(vault_pb2_grpc.VaultServicer):
    """Answers a task with a few steps, and then with nothing."""

    def __init__(self) -> None:
        self.released, self.cancelled = threading.Event(), threading.Event()

    def Train(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[vault_pb2.TrainEvent]:
        """Stream a few steps."""
        context.add_callback(self.cancelled.set)
        for done in range(1, STEPS + 1):
            self.released.wait(APART_S)
            yield vault_pb2.TrainEvent(steps_done=done)
        self.released.wait(20)


@contextmanager
def stuck_vault(folder: Path, *, silent_for_s: float) -> Iterator[tuple[StuckVault, VaultClient]]:
    """Serve one, and give the link's view of it, with so much patience."""
    stuck, server = StuckVault(), grpc.server(ThreadPoolExecutor(2))
    vault_pb2_grpc.add_VaultServicer_to_server(stuck, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{folder / 'v.sock'}")
    server.start()
    vault = VaultClient(folder / "v.sock", silent_for_s=silent_for_s)
    try:
        yield stuck, vault
    finally:
        stuck.released.set()
        vault.close()
        server.stop(0)
