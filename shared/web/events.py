"""A page that follows what happens, by server-sent events: a part is drawn again, and sent if it changed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

EVERY_S, TICK_S = 1.0, 0.5
"""Pause between two drawings, and the longest one before it is noticed that nobody listens any more."""
ALIVE_EVERY_S, LONGEST_S = 15.0, 1200.0
"""A comment shows whether somebody still listens; a stream ends at last, and a browser asks for another."""


def follow(request: Request, draw: Callable[[], str], *, every_s: float = EVERY_S) -> StreamingResponse:
    """Return a stream of one part of a page, whenever it changed, until the session or the process ends.

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

    return StreamingResponse(stream(), media_type="text/event-stream")


def event(text: str) -> str:
    """Return a text as one event; each of its lines is a line of the event."""
    return "".join(f"data: {line}\n" for line in text.splitlines() or [""]) + "\n"
