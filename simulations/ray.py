"""The Ray engine: Flower's own simulation, on one machine or a Ray cluster."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flwr.serverapp import ServerApp

from shared.errors import RunError, SettingsError
from simulations.engine import LocalEngine
from simulations.worker import RUN_FOLDER, THREADS, app


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
        backend = {"client_resources": {"num_cpus": self._threads, "num_gpus": 0.0}, "init_args": init}
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


def _noting_the_end(server_app: ServerApp, done: list[bool]) -> ServerApp:
    # Flower's engine returns nothing, also when the ServerApp raised
    noting = ServerApp()

    @noting.main()
    def main(grid: Any, context: Any) -> None:
        server_app(grid, context)
        done.append(True)

    return noting
