"""Reads a request's body whole, within a size and at a pace, before anything else is taken for it.

Guarantee: a body that comes slower than its pace ends at its deadline, however steadily it drips.
"""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request


class TooLarge(Exception):  # noqa: N818 - an answer, not a failure
    """A request body above its limit."""


class TooSlow(Exception):  # noqa: N818 - an answer, not a failure
    """A request body that came slower than its pace."""


@dataclass(frozen=True)
class Pace:
    """The slowest that a body may come."""

    grace_s: float = 10.0
    """Seconds that every body has."""
    bytes_per_s: float = 16 * 2**10
    """Bytes a second, on average, beyond that; infinite: no more time for a larger body."""


def declared_bytes(request: Request, otherwise: int) -> int:
    """Return how long a request says that its body is; a body in chunks does not say it."""
    if "transfer-encoding" in request.headers:
        return otherwise
    return int(request.headers.get("content-length") or 0)


async def read_whole(request: Request, limit: int, pace: Pace) -> bytes:
    """Return the whole body.

    Raises:
        TooLarge: it has more bytes than the limit.
        TooSlow: it came slower than its pace.
        ClientDisconnect: the client went away in the middle of it.
    """
    body, begin = bytearray(), asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(pace.grace_s) as deadline:
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise TooLarge
                deadline.reschedule(begin + pace.grace_s + len(body) / pace.bytes_per_s)
    except TimeoutError:
        raise TooSlow from None
    return bytes(body)
