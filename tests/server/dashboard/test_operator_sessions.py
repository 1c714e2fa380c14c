"""A session of an operator is its certificate's, ends after an idle while, and ends with the certificate."""

import pytest

from server.dashboard.operator_sessions import EACH, ENTERS_AT_ONCE, OperatorSessions


class Certificates:
    """Numbers of certificates that are good."""

    def __init__(self, *good: str) -> None:
        self.good, self.now = set(good), 0.0

    def sessions(self) -> OperatorSessions:
        return OperatorSessions(self.good.__contains__, idle_s=60, now=lambda: self.now)


@pytest.mark.guarantee(
    "a session of an operator is worth nothing under another certificate, and ends when its own is revoked."
)
def test_a_session_is_its_certificates_and_ends_with_it() -> None:
    certificates = Certificates("a", "b")
    sessions = certificates.sessions()
    session = sessions.enter("", "a")
    assert session is not None and sessions.find(session.secret, user="a") is session
    for other in ("b", None, 7):
        assert sessions.find(session.secret, user=other) is None
    assert sessions.find("", user="a") is None and sessions.find("é", user="a") is None
    certificates.good.discard("a")
    assert sessions.find(session.secret, user="a", by_itself=True) is None
    certificates.good.add("a")
    assert sessions.find(session.secret, user="a") is None, "it does not come back"


def test_nobody_without_a_certificate_comes_in() -> None:
    sessions = Certificates("a").sessions()
    assert sessions.enter("", None) is None and sessions.enter("key", 1000) is None


def test_an_idle_session_ends_and_what_a_page_asks_by_itself_keeps_none_alive() -> None:
    certificates = Certificates("a")
    sessions = certificates.sessions()
    session = sessions.enter("", "a")
    assert session is not None
    certificates.now = 50
    assert sessions.find(session.secret, user="a", by_itself=True) is session
    certificates.now = 61
    assert sessions.find(session.secret, user="a") is None


def test_a_certificate_has_few_sessions_and_each_ends_by_itself() -> None:
    sessions = Certificates("a", "b").sessions()
    opened = [sessions.enter("", "a") for _ in range(EACH + 1)]
    assert all(session is not None for session in opened)
    alive = [bool(session and sessions.find(session.secret, user="a")) for session in opened]
    assert alive == [False] + [True] * EACH
    sessions.end(opened[-1])
    assert sessions.find(opened[-1].secret, user="a") is None  # type: ignore[union-attr]
    assert sessions.find(opened[-2].secret, user="a") is opened[-2]  # type: ignore[union-attr]


def test_a_certificate_begins_so_many_sessions_and_no_more_for_a_while() -> None:
    certificates = Certificates("a", "b")
    sessions = certificates.sessions()
    opened = [sessions.enter("", "a") for _ in range(ENTERS_AT_ONCE + 1)]
    assert opened[-2] is not None and opened[-1] is None and sessions.enter("", "b") is not None
    certificates.now = 31
    assert sessions.enter("", "a") is not None
