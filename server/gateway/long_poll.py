"""Lets a node wait at the gateway until something was stored for it, so that it need not ask the SuperLink for that.

What it waits for says nothing but "ask now": the message itself is fetched by the node's own signed request. A node
waits once; whoever waits a second time ends the first wait.

Whoever waits is there. The SuperLink hears that of many nodes at once, and the answers to their waits say so. A node
then sends no heartbeats, each of which would go through Flower's whole stack.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.gateway.refusals import Refusals, origin
from server.gateway.turns import TokenBuckets
from server.wake_pipe import written_to
from shared.protocol.long_poll import LONGEST_WAIT_S, NODE_HEADER, PRESENT_HEADER, WAIT_PATH

SOMETHING, NOTHING = 200, 204
WAITS_PER_S, WAITS_AT_ONCE = 2.0, 50
KNOWN_FOR_S = LONGEST_WAIT_S + 5.0
"""How long the SuperLink's word that it knows a node is passed on: Flower takes the node for present for a minute."""


class PresentNodes:
    """Keeps which nodes have begun to wait, until the SuperLink has heard of it.

    Guarantee: a node hears that it need send no heartbeat only if the SuperLink took it for present half a minute ago.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._untold, self._known = clock, set[int](), dict[int, float]()

    def note(self, node: int) -> None:
        """Take note that a node is there."""
        self._untold.add(node)

    def forget(self, node: int) -> None:
        """Take note that a node is leaving."""
        self._untold.discard(node)
        self._known.pop(node, None)

    def is_known(self, node: int) -> bool:
        """Return whether the SuperLink takes a node for present, and will until its next wait."""
        return self._clock() - self._known.get(node, float("-inf")) <= KNOWN_FOR_S

    def tell(self, superlink: Callable[[Collection[int]], Collection[int]]) -> None:
        """Tell the SuperLink who was noted since the last time; it returns those that it knows."""
        nodes, now = self._untold.copy(), self._clock()
        if nodes:
            known = superlink(nodes)
            self._untold -= nodes
            self._known.update(dict.fromkeys(known, now))


class LongPoll:
    """The nodes that wait.

    Args:
        pipe: descriptor of what says for whom something was stored.
        number_of: returns Flower's number of the node that a request comes from, or None.
        clock: seconds.
        longest_s: after so long a wait ends with nothing.
        refusals: counts what is refused.
        present: hears who waits.
    """

    def __init__(
        self,
        pipe: int,
        number_of: Callable[[Request], int | None],
        clock: Callable[[], float],
        *,
        longest_s: float = LONGEST_WAIT_S,
        refusals: Refusals | None = None,
        present: PresentNodes | None = None,
    ) -> None:
        self._refusals, self._present = refusals or Refusals(), present or PresentNodes(clock)
        self._pipe, self._number_of, self._longest_s = pipe, number_of, longest_s
        self._buckets = TokenBuckets(WAITS_PER_S, WAITS_AT_ONCE, clock)
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._known, self._unheard, self._listens = set[int](), set[int](), False

    def route(self) -> Route:
        """Return the request that the gateway answers by itself."""
        return Route(WAIT_PATH, self._answer, methods=["GET"])

    def tell(self, nodes: Iterable[int]) -> None:
        """End the waits of these nodes; for one that does not wait, its next wait ends at once."""
        for node in nodes:
            wait = self._waiting.pop(node, None)
            if wait is None or wait.done():
                self._unheard.add(node)
            else:
                wait.set_result(True)

    async def _answer(self, request: Request) -> Response:
        if not self._listens:
            self._listens = True
            asyncio.get_running_loop().add_reader(self._pipe, lambda: self.tell(written_to(self._pipe)))
        node = self._number_of(request)
        if node is None:
            self._refusals.count(origin(request.client.host if request.client else "unknown"), "401 at waiting")
            return PlainTextResponse("not a node of this federation\n", 401)
        if not self._buckets.take(str(node)):
            self._refusals.count(f"node {node}", "429 at waiting")
            return PlainTextResponse("too many requests\n", 429, headers={"Retry-After": "1"})
        itself = request.headers.get(NODE_HEADER) == str(node)
        if itself:
            self._present.note(node)
        status = SOMETHING if await self._something(node) else NOTHING
        known = itself and self._present.is_known(node)
        return Response(status_code=status, headers={PRESENT_HEADER: "yes"} if known else None)

    async def _something(self, node: int) -> bool:
        before = self._waiting.pop(node, None)
        if before is not None and not before.done():
            before.set_result(False)
        if node in self._unheard or node not in self._known:
            # what was stored for it before this gateway ran, nobody has told
            self._known.add(node)
            self._unheard.discard(node)
            return True
        wait = self._waiting[node] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(wait, self._longest_s)
        except TimeoutError:
            return False
        finally:
            if self._waiting.get(node) is wait:
                del self._waiting[node]
