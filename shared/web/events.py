"""A page that follows what happens, by server-sent events: a part is drawn again, and sent if it changed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from shared.web.sessions import MOST_STREAMS, Session

EVERY_S, TICK_S = 1.0, 0.5
"""Pause between two drawings, and the longest one before it is noticed that nobody listens any more."""
ENOUGH = "As many pages as may follow what happens do so already: close one.\n"
ALIVE_EVERY_S, LONGEST_S = 15.0, 1200.0
"""A comment shows whether somebody still listens; a stream ends at last, and a browser asks for another."""


def follow(request: Request, draw: Callable[[], str], *, every_s: float = EVERY_S) -> Response:
    """Return a stream of one part of a page, whenever it changed, until the session or the process ends.

    Guarantee: a session follows at most `MOST_STREAMS` pages at a time.

    Args:
        request: that opened the stream.
        draw: returns the part's HTML; called in a thread.
        every_s: pause between two drawings.
    """

    async def over() -> bool:
        return request.app.state.stopping() or not request.state.goes_on() or await request.is_disconnected()

    async def stream() -> AsyncIterator[str]:
        latest, since, spoke, now = None, -every_s, 0.0, 0.0
        while now < LONGEST_S and not await over():
            if now - since >= every_s:
                since, part = now, await run_in_threadpool(draw)
                if part != latest:
                    latest, spoke = part, now
                    yield event(part)
            if now - spoke >= ALIVE_EVERY_S:
                spoke = now
                yield ": alive\n\n"
            tick = min(every_s, TICK_S)
            await asyncio.sleep(tick)
            now += tick

    return Stream(request.state.session, stream())


class Stream(StreamingResponse):
    """Sends events while it is among the streams that its session may have.

    Args:
        session: who follows.
        events: to send.
    """

    def __init__(self, session: Session, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them, unless as many others are sent already."""
        if self._session.streams >= MOST_STREAMS:
            await Response(ENOUGH, 429, media_type="text/plain")(scope, receive, send)
            return
        self._session.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._session.streams -= 1


def event(text: str) -> str:
    """Return a text as one event; each of its lines is a line of the event."""
    return "".join(f"data: {line}\n" for line in text.splitlines() or [""]) + "\n"
