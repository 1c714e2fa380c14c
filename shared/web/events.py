"""A page that follows what happens, by server-sent events: a part is drawn again, and sent if it changed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

EVERY_S, ALIVE_EVERY = 1.0, 15
"""Pause between two looks; after so many without a change a comment shows whether somebody still listens."""
LONGEST = 1200
"""Looks of one stream; a browser then asks again, and with that for its session."""


def follow(request: Request, draw: Callable[[], str], *, every_s: float = EVERY_S) -> StreamingResponse:
    """Return a stream of one part of a page, whenever it changed, for as long as the session goes on.

    Args:
        request: that opened the stream.
        draw: returns the part's HTML; called in a thread.
        every_s: pause between two looks.
    """

    async def stream() -> AsyncIterator[str]:
        latest, unchanged = None, 0
        for _look in range(LONGEST):
            if await request.is_disconnected() or not request.state.goes_on():
                return
            part = await run_in_threadpool(draw)
            unchanged = 0 if part != latest else unchanged + 1
            if part != latest:
                latest = part
                yield event(part)
            elif unchanged % ALIVE_EVERY == 0:
                yield ": alive\n\n"
            await asyncio.sleep(every_s)

    return StreamingResponse(stream(), media_type="text/event-stream")


def event(text: str) -> str:
    """Return a text as one event; each of its lines is a line of the event."""
    return "".join(f"data: {line}\n" for line in text.splitlines() or [""]) + "\n"
