"""Who may see a page: a key that opens it once and soon, one session at a time, an end after an idle while. No IO."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shared.web.confirmations import Confirmations

IDLE_S = 20 * 60.0
KEY_LIFE_S = 10 * 60.0
SECRET_BYTES = 32
MOST_STREAMS = 4
"""Of events, for one session; a browser opens six connections to one address, and needs some for pages."""


class Caller(NamedTuple):
    """Who asks, as this machine or a gateway says."""

    user: int | str | None
    """Whose session it may be: a number of a user of this machine, or a certificate; None where that is not known."""
    words: str
    """From where, for logs and rows."""
    name: str = ""
    """Whom a gateway has recognised; empty on this machine."""
    may_act: bool = True
    """Whether anything may be changed."""
    until: str = ""
    """The name, and how long that holds, for the person to read; empty on this machine."""


@dataclass
class Session:
    """One browser that came in."""

    secret: str
    """Stands in its cookie."""
    token: str
    """Comes with each write."""
    last_used: float
    user: int | str | None = None
    """Whose browser it is; None where that is not known."""
    confirmations: Confirmations = field(default_factory=Confirmations)
    """Questions that its pages have asked."""
    streams: int = 0
    """Pages of it that follow what happens."""

    @property
    def label(self) -> str:
        """A name for logs and rows; nobody can come in with it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:8]

    def is_token(self, sent: str) -> bool:
        """Return true for the session's own token."""
        return secrets.compare_digest(sent.encode(), self.token.encode())


class Entry(Protocol):
    """Knows who may see a page: `Sessions`, or what a gateway's certificates stand behind."""

    needs_key: bool
    """Whether a session begins with a key, or with the first look of a person who is known already."""
    where: str
    """How to come in, for whom the page has refused."""

    def enter(self, key: str, user: int | str | None) -> Session | None:
        """Return a new session, or None."""
        ...

    def find(self, secret: str, *, user: int | str | None, by_itself: bool) -> Session | None:
        """Return the session of a cookie, if it goes on."""
        ...

    def end(self, session: Session | None) -> None:
        """End a session."""
        ...


class Sessions:
    """Keys and the session of one page.

    Guarantee: the key of a page opens it once, and only for a while; the next one is announced when that session has
        ended, or whoever started the page asks for it.

    Args:
        announce: is given each new key, for the person who started the page.
        expired: is called when a key was not used while it was good.
        idle_s: a session that was not used for so long ends.
        key_life_s: a key that was not used for so long opens nothing.
        now: seconds of a clock that never goes back.
    """

    needs_key = True
    where = (
        "Open the address that stands in the terminal where the page was started. It opens once, within a few minutes; "
        "the terminal says how to get another."
    )

    def __init__(
        self,
        announce: Callable[[str], None] = lambda _key: None,
        *,
        expired: Callable[[], None] = lambda: None,
        idle_s: float = IDLE_S,
        key_life_s: float = KEY_LIFE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._announce, self._expired = announce, expired
        self._idle_s, self._key_life_s, self._now = idle_s, key_life_s, now
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._key, self._key_since = "", now()
        self.renew()

    def enter(self, key: str, user: int | str | None = None) -> Session | None:
        """Return a new session for the key that was announced last, which is used up by this; None for any other."""
        with self._lock:
            self.tidy()
            if not self._key or not secrets.compare_digest(key.encode(), self._key.encode()):
                return None
            self._key = ""
            self._session = new_session(user, self._now)
            return self._session

    def find(self, secret: str, *, user: int | str | None = None, by_itself: bool = False) -> Session | None:
        """Return the session of a cookie, if it goes on.

        Args:
            secret: from the cookie.
            user: whose process asks; the one who came in, or nobody.
            by_itself: the page asked, not the person: that keeps no session alive.
        """
        with self._lock:
            self.tidy()
            session = self._session
            if session is None or not secrets.compare_digest(secret.encode(), session.secret.encode()):
                return None
            if session.user != user:
                return None
            if not by_itself:
                session.last_used = self._now()
            return session

    def tidy(self) -> None:
        """End what has lasted too long: a session without its person, and a key that nobody used."""
        with self._lock:
            if self._session is not None and self._now() - self._session.last_used > self._idle_s:
                self.end()
            if self._key and self._now() - self._key_since > self._key_life_s:
                self._key = ""
                self._expired()

    def end(self, _session: Session | None = None) -> None:
        """End the one session, and announce the key of the next one."""
        with self._lock:
            self._session = None
            self.renew()

    def renew(self) -> None:
        """Announce a new key; a session goes on until somebody comes in with it."""
        with self._lock:
            self._key, self._key_since = _secret(), self._now()
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


def new_session(user: int | str | None, now: Callable[[], float]) -> Session:
    """Return a session that begins."""
    return Session(_secret(), _secret(), now(), user, Confirmations(now=now))


def _secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)
