"""Shares what there is among clients: places, of which each has a few and for which they take turns; tokens, by time.

Guarantee: a node's requests wait for its own, never for the requests that another node has piled up.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

REMEMBERED_CLIENTS = 10_000


class Busy(Exception):  # noqa: N818 - an answer, not a failure
    """A node has as many requests waiting as it may."""


class Turns:
    """Hands out places; whoever waits is served node by node, one request each.

    Args:
        at_once: places in all.
        each: places that one node may have.
        waiting: requests of one node that may wait.
    """

    def __init__(self, *, at_once: int, each: int, waiting: int) -> None:
        self._free, self._each, self._waiting = at_once, each, waiting
        self._taken: Counter[str] = Counter()
        # in the order of their turns
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, node: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it until the block ends.

        Raises:
            Busy: too many requests of this node wait already.
        """
        await self._take(node)
        try:
            yield
        finally:
            self._give_back(node)

    async def _take(self, node: str) -> None:
        if self._has_room(node) and node not in self._queues:
            self._grant(node)
            return
        queue = self._queues.setdefault(node, deque())
        if len(queue) >= self._waiting:
            raise Busy
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(node)
            elif turn in queue:
                queue.remove(turn)
                self._serve()
            raise

    def _has_room(self, node: str) -> bool:
        return self._free > 0 and self._taken[node] < self._each

    def _grant(self, node: str) -> None:
        self._free -= 1
        self._taken[node] += 1

    def _give_back(self, node: str) -> None:
        self._free += 1
        self._taken[node] -= 1
        if not self._taken[node]:
            del self._taken[node]
        self._serve()

    def _serve(self) -> None:
        for node in list(self._queues):
            queue = self._queues[node]
            while queue and queue[0].done():  # cancelled while it waited
                queue.popleft()
            if queue and self._has_room(node):
                self._grant(node)
                queue.popleft().set_result(None)
                # to the end of the line, behind everybody else who waits
                self._queues[node] = self._queues.pop(node)
            if not queue:
                del self._queues[node]


class TokenBuckets:
    """One bucket of tokens per client; forgets the clients that were silent longest."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, tokens_wanted: int = 1) -> bool:
        """Take tokens and return True; if there are not enough, take none and return False."""
        now = self._clock()
        tokens, since = self._clients.pop(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        enough = tokens >= tokens_wanted
        self._clients[client] = (tokens - tokens_wanted if enough else tokens, now)
        if len(self._clients) > REMEMBERED_CLIENTS:
            self._clients.popitem(last=False)
        return enough

    def give_back(self, client: str) -> None:
        """Return one token that a client turned out not to need."""
        if client in self._clients:
            tokens, since = self._clients[client]
            self._clients[client] = (min(self._burst, tokens + 1), since)
