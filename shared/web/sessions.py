"""Who may see a page: a key that opens it once, one session at a time, and an end after an idle while. Does no IO."""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

IDLE_S = 20 * 60.0
SECRET_BYTES = 32


@dataclass
class Session:
    """One browser that came in with the key."""

    secret: str
    """Stands in its cookie."""
    token: str
    """Comes with each write."""
    last_used: float
    user: int | None = None
    """Number of the user of this machine whose browser it is; None where that is not known."""

    @property
    def label(self) -> str:
        """A name for logs and rows; nobody can come in with it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:8]

    def is_token(self, sent: str) -> bool:
        """Return true for the session's own token."""
        return secrets.compare_digest(sent.encode(), self.token.encode())


class Sessions:
    """Keys and the session of one page.

    Guarantee: the key of a page opens it once; the next one is announced when that session has ended.

    Args:
        announce: is given each new key, for the person who started the page.
        idle_s: a session that was not used for so long ends.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        announce: Callable[[str], None] = lambda _key: None,
        *,
        idle_s: float = IDLE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._announce, self._idle_s, self._now = announce, idle_s, now
        self._session: Session | None = None
        self._key: str | None = None
        self.renew()

    def enter(self, key: str, user: int | None = None) -> Session | None:
        """Return a new session for the key that was announced last, which is used up by this; None for any other."""
        if self._key is None or not secrets.compare_digest(key.encode(), self._key.encode()):
            return None
        self._key = None
        self._session = Session(_secret(), _secret(), self._now(), user)
        return self._session

    def find(self, secret: str, *, user: int | None = None, by_itself: bool = False) -> Session | None:
        """Return the session of a cookie, if it goes on.

        Args:
            secret: from the cookie.
            user: whose process asks; the one who came in, or nobody.
            by_itself: the page asked, not the person: that keeps no session alive.
        """
        session = self._session
        if session is not None and self._now() - session.last_used > self._idle_s:
            self.end()
            return None
        if session is None or not secrets.compare_digest(secret.encode(), session.secret.encode()):
            return None
        if session.user != user:
            return None
        if not by_itself:
            session.last_used = self._now()
        return session

    def end(self) -> None:
        """End the session, and announce the key of the next one."""
        self._session = None
        self.renew()

    def renew(self) -> None:
        """Announce a new key."""
        self._key = _secret()
        self._announce(self._key)


class Rate:
    """So many requests a second, and a few at once.

    Args:
        per_s: how many in the long run.
        burst: how many at once.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, per_s: float, burst: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now = per_s, burst, now
        self._left, self._since = float(burst), now()

    def take(self) -> bool:
        """Return true if one more is within the rate."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._since) * self._per_s)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)
