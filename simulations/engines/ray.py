"""The Ray engine: Flower's own simulation, on one machine or a Ray cluster."""

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from shared.errors import RunError, SettingsError
from simulations.engines.local import LocalEngine
from simulations.engines.partition_query import read_partition
from simulations.engines.worker import RUN_FOLDER, THREADS

ANSWERS_WITHIN_S = 5.0
STARTUP_S = 300.0  # Ray's actors import everything before they answer for the first time


class RayEngine:
    """Trains through Flower's Ray backend; evaluates and builds caches in the local pool.

    Args:
        folder: run folder that the workers read; on a cluster, one that every machine sees under the same path.
        processes: of the local pool; 0 = one per core.
        threads: per worker; 0 = 1.
        app: module that holds the ClientApp, as `app`.
        address: of a Ray cluster that is running, as host:port; default: Ray is started on this machine.
    """

    def __init__(
        self,
        folder: Path,
        *,
        processes: int = 0,
        threads: int = 0,
        app: str = "simulations.engines.worker",
        address: str | None = None,
    ) -> None:
        try:
            import ray  # noqa: F401 - only to say early that it is missing
        except ImportError:
            raise SettingsError(
                "Expected Ray for engine 'ray', got none.", hint="pip install '.[simulation]'"
            ) from None
        cores = len(os.sched_getaffinity(0))
        self._local = LocalEngine(folder, processes=processes, threads=threads)
        self._cores, self._threads, self._folder = cores, threads or 1, folder
        self._address = address
        self._app: ClientApp = importlib.import_module(app).app

    def serve(self, server_app: ServerApp, sizes: Sequence[int]) -> None:
        """Run a ServerApp to its end with one virtual node per size."""
        from flwr.simulation import run_simulation

        environment = {RUN_FOLDER: str(self._folder), THREADS: str(self._threads)}
        os.environ |= environment
        if self._address is not None:
            _join(self._address, environment)
        init = {"num_cpus": self._cores, "include_dashboard": False, "log_to_driver": False}
        backend: dict[str, Any] = {"client_resources": {"num_cpus": self._threads, "num_gpus": 0.0}, "init_args": init}
        done: list[bool] = []
        try:
            run_simulation(_noting_the_end(server_app, len(sizes), done), self._app, len(sizes), backend_config=backend)
        except RuntimeError as error:
            raise RunError("Expected Flower's Ray engine to run, got an error.", hint=str(error)) from error
        if not done:
            raise RunError("Expected the Ray simulation to finish, it stopped early.", hint="See it with --verbose.")

    def map(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, done: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Call a function in the local workers; return its results in the order of the calls."""
        return self._local.map(function, calls, done=done)

    def close(self) -> None:
        """Stop the local workers; Flower stops Ray itself."""
        self._local.close()


class PartitionGrid(Grid):
    """Names nodes 1 to n by their partition, as the local grid does; Flower draws their real ids at random."""

    def __init__(self, grid: Grid, nodes: int) -> None:
        self._grid = grid
        waited_until = time.monotonic() + STARTUP_S
        while len(real := list(grid.get_node_ids())) < nodes and time.monotonic() < waited_until:
            time.sleep(0.05)  # the engine registers its nodes while the ServerApp starts
        asked = [Message(RecordDict(), node, "query") for node in real]
        replies = list(grid.send_and_receive(asked, timeout=STARTUP_S))
        if len(replies) != nodes or not all(reply.has_content() for reply in replies):
            raise RunError(f"Expected {nodes} simulated nodes to answer, got {len(replies)}.")
        self._real = {read_partition(reply) + 1: reply.metadata.src_node_id for reply in replies}

    def set_run(self, run: Any) -> None:
        """Set the run, as Flower's grid does."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """Return the run, as Flower's grid does."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Make a message, as Flower's grid does."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return nodes 1 to n; node i has partition i - 1."""
        return sorted(self._real)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to the nodes' real ids."""
        return self._grid.push_messages(map(self._addressed, messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are ready; callers match them by message id."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages to the nodes' real ids and wait for the replies."""
        return self._grid.send_and_receive(map(self._addressed, messages), timeout=timeout)

    def _addressed(self, message: Message) -> Message:
        sent = message.metadata
        node = self._real[sent.dst_node_id]
        return Message(message.content, node, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)


def _join(address: str, environment: dict[str, str]) -> None:
    """Connect before Flower does, which then leaves Ray as it is: it cannot pass an environment to other machines.

    Raises:
        SettingsError: not an address.
        RunError: no cluster answers there.
    """
    import ray

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise SettingsError(
            f"Expected host:port of a Ray cluster, got {address!r}.", hint="--ray-address 10.0.0.1:6379"
        )
    hint = "Start one with: ray start --head"
    try:  # Ray itself would try for minutes
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError):
        raise RunError(f"Expected a Ray cluster at {address}, nothing answers there.", hint=hint) from None
    variables = {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(f"Expected a Ray cluster at {address}, got another service ({error}).", hint=hint) from error


def _noting_the_end(server_app: ServerApp, nodes: int, done: list[bool]) -> ServerApp:
    # Flower's engine returns nothing, also when the ServerApp raised
    noting = ServerApp()

    @noting.main()
    def main(grid: Any, context: Any) -> None:
        server_app(PartitionGrid(grid, nodes), context)
        done.append(True)

    return noting
