"""The local engine: simulated sites in a pool of warm worker processes, behind Flower's Grid in memory.

The same ServerApp and ClientApp run as in a deployment. Messages go to whichever worker is free; a worker keeps models
and data between rounds.
"""

import fcntl
import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from shared.errors import RunError
from simulations.engines.grid import LocalGrid, died, partition_of

RUN_ID = 1
BUNDLES_PER_WORKER = 16
REPLY_PIPE_BYTES = 2**20  # what Linux allows everybody


class Engine(Protocol):
    """Runs a ServerApp against simulated nodes, and plain functions in the same workers."""

    def serve(self, app: ServerApp, sizes: Sequence[int]) -> None:
        """Run a ServerApp to its end with one node per size; the sizes only decide who starts first."""
        ...

    def map(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, done: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Call a function in the workers, in the given order, and return the results in that order.

        Args:
            function: of a module.
            calls: its arguments, call by call.
            done: told of every call that is done.

        Raises:
            RunError: a worker died.
        """
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...


class LocalEngine:
    """A pool of worker processes that share the machine's cores fairly.

    Args:
        folder: run folder that the workers read.
        processes: number of workers; 0 = one per core.
        threads: per worker; 0 = cores divided by workers.
        app: module that holds the ClientApp, as `app`.
    """

    def __init__(
        self, folder: Path, *, processes: int = 0, threads: int = 0, app: str = "simulations.engines.worker"
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        self.processes = processes or cores
        self._threads = threads or max(1, cores // self.processes)
        self._folder, self._app = folder, app
        self._pool = self._start()
        gc.collect()
        gc.freeze()  # else thousands of messages have all that was ever imported searched for garbage

    def serve(self, app: ServerApp, sizes: Sequence[int]) -> None:
        """Run a ServerApp to its end over a grid of `len(sizes)` nodes."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 0
        grid = self.grid(sizes)
        context = Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config={})
        try:
            app(grid, context)
        finally:
            grid.cancel()

    def grid(self, sizes: Sequence[int]) -> LocalGrid:
        """Return a grid of `len(sizes)` nodes over the workers."""
        return LocalGrid(self.submit, sizes, bundles=BUNDLES_PER_WORKER * self.processes)

    def submit(self, messages: list[Message], nodes: int) -> Future[list[Message]]:
        """Hand messages to one worker, which answers them one after the other."""
        return self._call(answer, self._app, messages, nodes)

    def map(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, done: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Call a function in the workers; return its results in the order of the calls."""
        futures = [self._call(function, *call) for call in calls]
        try:
            for future in as_completed(futures):
                future.result()
                done()
        except BrokenProcessPool as error:
            raise RunError(
                "Expected workers that live to the end, got one that was killed: mostly for want of memory.",
                hint="--resume goes on with what is done, also with fewer workers: --set simulation.processes=1",
            ) from error
        return [future.result() for future in futures]

    def close(self) -> None:
        """Stop at once, also in the middle of work."""
        gc.unfreeze()
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        try:
            return self._pool.submit(function, *arguments)
        except BrokenProcessPool:  # a worker died in earlier work; this work gets new ones
            self._pool = self._start()
            return self._pool.submit(function, *arguments)

    def _start(self) -> ProcessPoolExecutor:
        from simulations.engines.worker import start_worker

        context = WorkerContext()
        context.set_forkserver_preload(["simulations.engines.worker"])
        pool = ProcessPoolExecutor(self.processes, context, start_worker, (str(self._folder), self._threads))
        with suppress(AttributeError, OSError):  # by 64 KiB, worker and parent would wait for each other at every step
            fcntl.fcntl(pool._result_queue._writer.fileno(), fcntl.F_SETPIPE_SZ, REPLY_PIPE_BYTES)  # type: ignore[attr-defined]
        return pool


class _WorkerProcess(ForkServerProcess):
    """A worker that does not run its parent's script again: no `if __name__ == "__main__"` is needed around a run."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - multiprocessing's own name
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            return ForkServerProcess._Popen(process)
        finally:
            sys.modules["__main__"] = script


class WorkerContext(ForkServerContext):
    """Starts processes that import what they need, and not the script that started them."""

    Process = _WorkerProcess


def answer(app: str, messages: Sequence[Message], nodes: int) -> list[Message]:
    """Run the ClientApp of a module on some messages, in a worker."""
    client_app: ClientApp = importlib.import_module(app).app
    return [_answer(client_app, message, nodes) for message in messages]


def _answer(client_app: ClientApp, message: Message, nodes: int) -> Message:
    config: dict[str, Any] = {"partition-id": partition_of(message), "num-partitions": nodes}
    node = message.metadata.dst_node_id
    context = Context(run_id=RUN_ID, node_id=node, node_config=config, state=RecordDict(), run_config={})
    try:
        return client_app(message, context)
    except Exception as failure:  # one client that breaks is one error reply, as Flower's own engine gives
        return died(message, failure)
