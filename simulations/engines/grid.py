"""Flower's Grid in memory: messages become futures, and futures become replies.

Messages go out longest first, small ones several at a time. Where a worker dies, all that was asked and not answered
yet becomes error replies, as if those nodes had died.
"""

import itertools
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

NODE_DIED = 8  # the code Flower itself uses for a ClientApp that stopped responding
IDS = itertools.count(1)
LONGEST_PULL_S = 0.2
Submit = Callable[[list[Message], int], "Future[list[Message]]"]


class LocalGrid(Grid):
    """Flower's Grid, whose replies are futures.

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
        """Ignore the run: one grid serves one."""

    @property
    def run(self) -> Any:
        """Refuse: outside a SuperLink there is no record of a run."""
        raise LookupError("A simulated grid has no run record.")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message as Flower builds it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return nodes 1 to n; node i has partition i - 1."""
        return range(1, len(self._sizes) + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start the work, longest first; return ids in the order of the messages."""
        tasks = list(messages)
        ids_in_order = [""] * len(tasks)
        for places in bundled([self._sizes[partition_of(message)] for message in tasks], self._bundles):
            # one bundle after the other, so that workers have begun before the last has its ids
            bundle = [with_id(tasks[place]) for place in places]
            ids = [message.metadata.message_id for message in bundle]
            future = self._submit(bundle, len(self._sizes))
            for order, (place, message_id) in enumerate(zip(places, ids, strict=True)):
                ids_in_order[place] = message_id
                self._pending[message_id] = (bundle[order], order, future)
            future.add_done_callback(self._noting(ids))
        return ids_in_order

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are ready, after waiting up to a moment for the first."""
        wanted = set(message_ids)
        self._collect(wait_s=0.0 if self._ready else LONGEST_PULL_S)
        ready = [i for i in self._ready if i in wanted]
        for i in ready:
            del self._ready[i]
        return [_result(*self._pending.pop(i)) for i in ready]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages, wait for all replies, and pull them."""
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
        """Drop the work that has not started."""
        for _, _, future in self._pending.values():
            future.cancel()


def bundled(sizes: Sequence[int], bundles: int) -> Iterator[list[int]]:
    """Group places, largest first, so that each bundle holds about the same share of all sizes."""
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
    """Return the partition of the node that a message is for."""
    return message.metadata.dst_node_id - 1


def with_id(message: Message) -> Message:
    """Give a message an id, as Flower's own grids do."""
    message.metadata.__dict__["_message_id"] = str(next(IDS))
    return message


def _result(question: Message, place: int, future: "Future[list[Message]]") -> Message:
    failure = future.exception()
    return future.result()[place] if failure is None else died(question, failure)


def died(question: Message, failure: BaseException) -> Message:
    """Make the error reply that stands for a node that died."""
    return Message(Error(code=NODE_DIED, reason=type(failure).__name__), reply_to=question)
