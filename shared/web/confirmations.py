"""Questions that a page has asked, each of which one write may answer, once and soon. Does no IO."""

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

CONFIRMATION_FIELD = "confirmation"
LIFE_S = 15 * 60.0
MOST_OPEN = 100
"""Questions of one session; the oldest ones are forgotten first."""

Fields = Mapping[str, str]


class Asked(NamedTuple):
    """A question that waits for its answer."""

    path: str
    fields: Fields
    """What goes with the answer, as it was shown."""
    filled_in: frozenset[str]
    """Names of what the person adds."""
    since: float


class Confirmations:
    """Holds the questions that one session's pages have asked.

    Guarantee: a confirmation lets one write do exactly what its question asked, once, and only for a while.

    Args:
        life_s: for which an answer counts.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, *, life_s: float = LIFE_S, now: Callable[[], float] = time.monotonic) -> None:
        self._life_s, self._now, self._open = life_s, now, dict[str, Asked]()
        self._lock = threading.Lock()

    def ask(self, path: str, fields: Fields, filled_in: Collection[str] = ()) -> str:
        """Return the confirmation that the form of a question carries.

        Args:
            path: of the write.
            fields: that the form carries.
            filled_in: names of fields that the person adds to them.
        """
        confirmation = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._open) >= MOST_OPEN:
                del self._open[next(iter(self._open))]
            self._open[confirmation] = Asked(path, dict(fields), frozenset(filled_in), self._now())
        return confirmation

    def take(self, confirmation: str, path: str, form: Fields) -> bool:
        """Return true if a write answers this question with what was shown; whatever it is, it counts no more."""
        with self._lock:
            asked = self._open.pop(confirmation, None)
        if asked is None or asked.path != path or self._now() - asked.since > self._life_s:
            return False
        return {name: value for name, value in form.items() if name not in asked.filled_in} == asked.fields
