"""The Ray engine: Flower's own simulation, on one machine or a Ray cluster."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from shared.errors import RunError, SettingsError
from simulations.engine import LocalEngine
from simulations.worker import RUN_FOLDER, THREADS, app, partition_of


class RayEngine:
    """Trains through Flower's Ray backend; evaluates in the local pool, which is also where caches are built."""

    def __init__(self, folder: Path, *, processes: int = 0, threads: int = 0) -> None:
        try:
            import ray  # noqa: F401 - only to say early that it is missing
        except ImportError:
            raise SettingsError(
                "Expected Ray for engine 'ray', got none.", hint="pip install '.[simulation]'"
            ) from None
        cores = len(os.sched_getaffinity(0))
        self._local = LocalEngine(folder, processes=processes, threads=threads)
        self._cores, self._threads, self._folder = cores, threads or 1, folder

    def serve(self, server_app: ServerApp, sizes: Sequence[int]) -> None:
        """Run a ServerApp with one virtual node per size."""
        from flwr.simulation import run_simulation

        os.environ |= {RUN_FOLDER: str(self._folder), THREADS: str(self._threads)}
        init = {
            "num_cpus": self._cores,
            "include_dashboard": False,
            "log_to_driver": False,
            "runtime_env": {"env_vars": {RUN_FOLDER: str(self._folder), THREADS: str(self._threads)}},
        }
        backend: dict[str, Any] = {"client_resources": {"num_cpus": self._threads, "num_gpus": 0.0}, "init_args": init}
        done: list[bool] = []
        run_simulation(_noting_the_end(server_app, done), app, len(sizes), backend_config=backend)
        if not done:
            raise RunError("Expected the Ray simulation to finish, it stopped early.", hint="Its log is above.")

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function in the local workers."""
        return self._local.map(function, calls)

    def close(self) -> None:
        """Stop the local workers; Flower stops Ray itself."""
        self._local.close()


class PartitionGrid(Grid):
    """Names nodes 1 to n by their partition, as the local grid does; Flower draws their real ids at random."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        real = list(grid.get_node_ids())
        asked = [Message(RecordDict(), node, "query") for node in real]
        replies = list(grid.send_and_receive(asked))
        if len(replies) != len(real) or not all(reply.has_content() for reply in replies):
            raise RunError(f"Expected {len(real)} simulated nodes to answer, got {len(replies)}.")
        self._real = {partition_of(reply) + 1: reply.metadata.src_node_id for reply in replies}

    def set_run(self, run: Any) -> None:
        """As Flower's."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As Flower's."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As Flower's."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes 1 to n; node i has partition i - 1."""
        return sorted(self._real)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send to the real ids."""
        return self._grid.push_messages(map(self._addressed, messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As Flower's; callers match replies by message id."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's, to the real ids."""
        return self._grid.send_and_receive(map(self._addressed, messages), timeout=timeout)

    def _addressed(self, message: Message) -> Message:
        sent = message.metadata
        node = self._real[sent.dst_node_id]
        return Message(message.content, node, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)


def _noting_the_end(server_app: ServerApp, done: list[bool]) -> ServerApp:
    # Flower's engine returns nothing, also when the ServerApp raised
    noting = ServerApp()

    @noting.main()
    def main(grid: Any, context: Any) -> None:
        server_app(PartitionGrid(grid), context)
        done.append(True)

    return noting
