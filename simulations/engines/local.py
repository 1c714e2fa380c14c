"""The local engine: Flower's Grid in memory, over a pool of warm worker processes.

The same ServerApp and ClientApp run as in a deployment. Messages go to whichever worker is free, longest first, small
ones several at a time; a worker keeps models and data between rounds. Where a worker dies, all that was asked and not
answered yet becomes error replies, as if those nodes had died.
"""

import fcntl
import gc
import importlib
import itertools
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from shared.errors import RunError

NODE_DIED = 8  # the code Flower itself uses for a ClientApp that stopped responding
RUN_ID = 1
IDS = itertools.count(1)
LONGEST_PULL_S = 0.2
BUNDLES_PER_WORKER = 16
REPLY_PIPE_BYTES = 2**20  # what Linux allows everybody
Handle = Callable[[Message, int, int], Message]
Submit = Callable[[list[Message], int], "Future[list[Message]]"]


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
        """Run a ServerApp over a grid of `len(sizes)` nodes."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 0
        grid = self.grid(sizes)
        context = Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config={})
        try:
            app(grid, context)
        finally:
            grid.cancel()

    def grid(self, sizes: Sequence[int]) -> "LocalGrid":
        """A grid of `len(sizes)` nodes over the workers."""
        return LocalGrid(self.submit, sizes, bundles=BUNDLES_PER_WORKER * self.processes)

    def submit(self, messages: list[Message], nodes: int) -> Future[list[Message]]:
        """Hand messages to a worker, which answers them one after the other."""
        return self._call(answer, self._app, messages, nodes)

    def map(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, done: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Call a function in the workers."""
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

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["simulations.engines.worker"])
        pool = ProcessPoolExecutor(self.processes, context, start_worker, (str(self._folder), self._threads))
        with suppress(AttributeError, OSError):  # by 64 KiB, worker and parent would wait for each other at every step
            fcntl.fcntl(pool._result_queue._writer.fileno(), fcntl.F_SETPIPE_SZ, REPLY_PIPE_BYTES)  # type: ignore[attr-defined]
        return pool


class LocalGrid(Grid):
    """Flower's Grid over futures.

    Args:
        submit: starts the work for some messages, given the number of nodes.
        sizes: one node per entry; larger ones start first.
        bundles: into how many pieces of like size a round is cut; default, one message each.
    """

    def __init__(self, submit: Submit, sizes: Sequence[int], *, bundles: int | None = None) -> None:
        self._submit, self._sizes, self._bundles = submit, list(sizes), bundles or len(sizes)
        self._pending: dict[str, tuple[Message, int, Future[list[Message]]]] = {}
        self._finished: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._ready: dict[str, None] = {}

    def set_run(self, run: Any) -> None:
        """Nothing to set: one grid serves one run."""

    @property
    def run(self) -> Any:
        """There is no record of a run outside a SuperLink."""
        raise LookupError("A simulated grid has no run record.")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message as Flower builds it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes 1 to n; node i has partition i - 1."""
        return range(1, len(self._sizes) + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start the work, longest first; returns ids in the order of the messages."""
        asked = list(messages)
        found = [""] * len(asked)
        for places in bundled([self._sizes[partition_of(message)] for message in asked], self._bundles):
            # one bundle after the other, so that workers have begun before the last has its ids
            bundle = [with_id(asked[place]) for place in places]
            ids = [message.metadata.message_id for message in bundle]
            future = self._submit(bundle, len(self._sizes))
            for order, (place, message_id) in enumerate(zip(places, ids, strict=True)):
                found[place] = message_id
                self._pending[message_id] = (bundle[order], order, future)
            future.add_done_callback(self._noting(ids))
        return found

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are ready; waits up to a moment for the first."""
        wanted = set(message_ids)
        self._collect(wait_s=0.0 if self._ready else LONGEST_PULL_S)
        found = [i for i in self._ready if i in wanted]
        for i in found:
            del self._ready[i]
        return [_result(*self._pending.pop(i)) for i in found]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, wait, pull."""
        ids = list(self.push_messages(messages))
        wait([self._pending[i][2] for i in ids], timeout=timeout)
        return self.pull_messages(ids)

    def _noting(self, ids: list[str]) -> Callable[[Future[list[Message]]], None]:
        return lambda _done: self._finished.put(ids)

    def _collect(self, *, wait_s: float) -> None:
        # a queue, not a look at every future: a round of n replies then costs n, not n squared
        try:
            self._ready |= dict.fromkeys(self._finished.get(timeout=wait_s) if wait_s else [])
            while True:
                self._ready |= dict.fromkeys(self._finished.get_nowait())
        except queue.Empty:
            return

    def cancel(self) -> None:
        """Drop what has not started."""
        for _, _, future in self._pending.values():
            future.cancel()


def bundled(sizes: Sequence[int], bundles: int) -> Iterator[list[int]]:
    """Group places so that a bundle is full as soon as it holds its share; largest first."""
    share = sum(sizes) / bundles
    bundle: list[int] = []
    total = 0.0
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        bundle.append(place)
        total += sizes[place]
        if total >= share:
            yield bundle
            bundle, total = [], 0.0
    if bundle:
        yield bundle


def partition_of(message: Message) -> int:
    """Partition of the node that a message is for."""
    return message.metadata.dst_node_id - 1


def answer(app: str, messages: Sequence[Message], nodes: int) -> list[Message]:
    """Run the ClientApp of a module on some messages, in a worker."""
    client_app: ClientApp = importlib.import_module(app).app
    return [_answered(client_app, message, nodes) for message in messages]


def _answered(client_app: ClientApp, message: Message, nodes: int) -> Message:
    config: dict[str, Any] = {"partition-id": partition_of(message), "num-partitions": nodes}
    node = message.metadata.dst_node_id
    context = Context(run_id=RUN_ID, node_id=node, node_config=config, state=RecordDict(), run_config={})
    try:
        return client_app(message, context)
    except Exception as failure:  # one client that breaks is one error reply, as Flower's own engine gives
        return _failed(message, failure)


def in_process(executor: Executor, handle: Handle) -> Submit:
    """A submit function for `LocalGrid` that runs a handler on an executor of this process."""

    def handled(messages: Sequence[Message], nodes: int) -> list[Message]:
        return [handle(message, partition_of(message), nodes) for message in messages]

    return lambda messages, nodes: executor.submit(handled, messages, nodes)


def with_id(message: Message) -> Message:
    """The message, given an id as Flower's own grids give theirs."""
    message.metadata.__dict__["_message_id"] = str(next(IDS))
    return message


def _result(question: Message, place: int, future: "Future[list[Message]]") -> Message:
    failure = future.exception()
    return future.result()[place] if failure is None else _failed(question, failure)


def _failed(question: Message, failure: BaseException) -> Message:
    return Message(Error(code=NODE_DIED, reason=type(failure).__name__), reply_to=question)
