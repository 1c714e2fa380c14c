"""Answers of Flower's that a node has to understand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx


def refusing(skew: timedelta, status: int = 401) -> Callable[[object], object]:
    """A call that a server refuses whose clock is so far ahead of this one; Flower and the gateway say the date."""

    def call(_request: object) -> object:
        date = format_datetime(datetime.now(UTC) + skew, usegmt=True)
        response = httpx.Response(status, headers=[("date", date), ("date", date)])
        raise httpx.HTTPStatusError("refused", request=httpx.Request("POST", "https://gate"), response=response)

    return call
