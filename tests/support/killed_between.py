"""Ends a process, as kill -9 would, right after one of its writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest


class Killed(BaseException):
    """kill -9: nothing of ours catches it."""


@contextmanager
def killed_after(
    writes: int, methods: Sequence[tuple[Any, Sequence[str]]], patch: pytest.MonkeyPatch
) -> Iterator[Callable[[], bool]]:
    """Raise `Killed` once so many writes are done, counted over all methods; 0 is before the first.

    Args:
        writes: how many are carried out.
        methods: owners, classes or modules, and the names of what writes.
        patch: takes the counting away again.

    Yields:
        Tells whether it came to the kill.
    """
    done, came_to_it = 0, False

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def count(*given: Any, **named: Any) -> Any:
            nonlocal done, came_to_it
            if done == writes:
                came_to_it = True
                raise Killed
            done += 1
            return write(*given, **named)

        return count

    with patch.context() as counting:
        for owner, names in methods:
            for name in names:
                counting.setattr(owner, name, counted(getattr(owner, name)))
        yield lambda: came_to_it
