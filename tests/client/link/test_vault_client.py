"""The link does not wait for ever for a vault that does nothing."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from client.link.vault_client import VaultClient
from client.vault_api._generated import vault_pb2, vault_pb2_grpc
from shared.errors import RunError
from shared.protocol.messages import TrainTask

TASK = TrainTask("s" * 64, "run", 3, np.zeros(2, np.float32))


class Stuck(vault_pb2_grpc.VaultServicer):
    """Finishes some steps, a little apart, and then none."""

    def __init__(self) -> None:
        self.released, self.cancelled = threading.Event(), threading.Event()

    def Train(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[vault_pb2.TrainEvent]:
        context.add_callback(self.cancelled.set)
        for done in range(1, 5):
            self.released.wait(0.2)
            yield vault_pb2.TrainEvent(steps_done=done)
        self.released.wait(20)


def test_a_vault_that_finishes_no_step_is_given_up_and_one_that_is_slow_is_not(tmp_path: Path) -> None:
    stuck, server, steps = Stuck(), grpc.server(ThreadPoolExecutor(2)), list[int]()
    vault_pb2_grpc.add_VaultServicer_to_server(stuck, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{tmp_path / 'v.sock'}")
    server.start()
    vault = VaultClient(tmp_path / "v.sock", silent_for_s=0.6)
    try:
        with pytest.raises(RunError, match=r"Expected a step of round 3 within 0\.6 s"):
            vault.train(TASK, on_step=steps.append)
        assert steps == [1, 2, 3, 4], "0.8 s in all, and none of them too long"
        assert stuck.cancelled.wait(10), "the vault ends the job at its next step"
    finally:
        stuck.released.set()
        vault.close()
        server.stop(0)
