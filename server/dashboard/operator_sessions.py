"""Sessions of operators at other machines: each is its certificate's, and ends with it. Does no IO of its own."""

import secrets
import time
from collections.abc import Callable

from shared.web.sessions import IDLE_S, Rate, Session, new_session

ENTERS_PER_S, ENTERS_AT_ONCE = 1 / 30, 20
"""Sessions that a certificate may begin: each is a line in the event log."""
EACH = 4
"""Browsers that one certificate may be used in at a time; for one more the oldest session ends."""


class OperatorSessions:
    """The sessions of all operators; a person whom the gateway knows comes in by looking.

    Guarantee: a session of an operator is worth nothing under another certificate, and ends when its own is revoked.

    Args:
        is_good: tells whether a certificate of this number may come in, as of now.
        idle_s: a session that was not used for so long ends.
        now: seconds of a clock that never goes back.
    """

    needs_key = False
    where = "Show your operator's certificate, and open the page's first address."

    def __init__(
        self, is_good: Callable[[str], bool], *, idle_s: float = IDLE_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_good, self._idle_s, self._now = is_good, idle_s, now
        self._sessions, self._rates = dict[str, list[Session]](), dict[str, Rate]()

    def enter(self, _key: str, user: int | str | None) -> Session | None:
        """Return a new session for a certificate; None if it begins too many."""
        if not isinstance(user, str):
            return None
        rate = self._rates.setdefault(user, Rate(ENTERS_PER_S, ENTERS_AT_ONCE, now=self._now))
        if not rate.take():
            return None
        session = new_session(user, self._now)
        self._sessions[user] = [*self._going_on(user), session][-EACH:]
        return session

    def find(self, secret: str, *, user: int | str | None, by_itself: bool = False) -> Session | None:
        """Return the session of a cookie, if it is this certificate's and goes on; see `Sessions`."""
        if not isinstance(user, str):
            return None
        if not self._is_good(user):
            self._sessions.pop(user, None)
            return None
        for session in self._going_on(user):
            if secrets.compare_digest(secret.encode(), session.secret.encode()):
                if not by_itself:
                    session.last_used = self._now()
                return session
        return None

    def end(self, session: Session | None) -> None:
        """End a session."""
        if session is not None and isinstance(session.user, str):
            self._sessions[session.user] = [one for one in self._going_on(session.user) if one is not session]

    def _going_on(self, user: str) -> list[Session]:
        return [one for one in self._sessions.get(user, ()) if self._now() - one.last_used <= self._idle_s]
