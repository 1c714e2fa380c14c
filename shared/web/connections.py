"""Keep connections that do nothing from keeping a person out: each has a time for its request, and the oldest goes."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
REQUEST_S = 10.0
"""For a request's header, since the connection began or its last answer ended."""
READ_S = 60.0
"""For reading on, where an answer waits for it."""


class BriefConnection(H11Protocol):
    """Extends uvicorn's HTTP protocol by a time for a request, and makes room for whoever comes new.

    Guarantee: connections that ask for nothing, however many, keep nobody out of a page.

    Args:
        request_s: time for a request's header.
        of_uvicorn: as uvicorn passes it.
    """

    def __init__(self, *, request_s: float = REQUEST_S, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._request_s = request_s
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self.since = 0.0
        """When it began to wait for a request."""

    @property
    def waits(self) -> bool:
        """True while nothing that was asked for here is under way."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; where there are too many connections, end the one that has waited longest."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, BriefConnection) and one.waits]
            min(waiting, key=lambda one: one.since).end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        for timer in (self._deadline, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request, whatever is still sent of this one."""
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give whoever asked a time to read on."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_S, self.end)

    def resume_writing(self) -> None:
        """Take that time back."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def end(self) -> None:
        """Close the connection at once; its place is free from now on."""
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.since = self.loop.time()
        self._deadline = self.loop.call_later(self._request_s, self._late)

    def _late(self) -> None:
        if self.waits:
            self.end()
