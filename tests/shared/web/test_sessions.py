"""A key opens a page once, a session ends after an idle while, and nobody asks faster than a person does."""

import pytest

from shared.web.sessions import Rate, Sessions


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.guarantee(
    "the key of a page opens it once, and only for a while; the next one is announced when that session has ended, or "
    "whoever started the page asks for it."
)
def test_a_key_opens_once_and_the_next_one_follows_the_session() -> None:
    keys = list[str]()
    sessions = Sessions(keys.append)
    session = sessions.enter(keys[0])
    assert session is not None and sessions.find(session.secret) is session
    assert sessions.enter(keys[0]) is None and len(keys) == 1
    sessions.end()
    assert sessions.find(session.secret) is None and sessions.enter(keys[0]) is None
    again = sessions.enter(keys[1])
    assert again is not None
    sessions.renew()
    assert sessions.find(again.secret) is again, "until somebody comes in with the new one"
    assert sessions.enter(keys[2]) is not None and sessions.find(again.secret) is None


def test_a_key_that_nobody_used_opens_nothing_after_a_while_and_that_is_said() -> None:
    keys, said, clock = list[str](), list[str](), Clock()
    sessions = Sessions(keys.append, expired=lambda: said.append("expired"), key_life_s=60, now=clock)
    clock.now = 61.0
    assert sessions.enter(keys[0]) is None and said == ["expired"] and len(keys) == 1
    sessions.tidy()
    assert said == ["expired"], "it is said once"
    sessions.renew()
    clock.now = 121.0
    assert sessions.enter(keys[1]) is not None
    clock.now = 1000.0
    sessions.tidy()
    assert said == ["expired"], "a key that was used does not expire"


@pytest.mark.parametrize("key", ["", "guess", "é", "\0"])
def test_no_other_key_opens_it_or_uses_it_up(key: str) -> None:
    keys = list[str]()
    sessions = Sessions(keys.append)
    assert sessions.enter(key) is None
    assert sessions.enter(keys[0]) is not None


def test_an_idle_session_ends_and_what_a_page_asks_by_itself_keeps_none_alive() -> None:
    keys, clock = list[str](), Clock()
    sessions = Sessions(keys.append, idle_s=60, now=clock)
    session = sessions.enter(keys[0])
    assert session is not None
    for clock.now in (50.0, 100.0):
        assert sessions.find(session.secret)
    clock.now = 150.0
    assert sessions.find(session.secret, by_itself=True)
    clock.now = 161.0
    assert sessions.find(session.secret) is None and len(keys) == 2


def test_cookies_and_tokens_of_others_are_none_of_ours() -> None:
    keys = list[str]()
    session = Sessions(keys.append).enter(keys[0])
    assert session is not None and session.is_token(session.token)
    assert not any(session.is_token(sent) for sent in ("", session.secret, session.label, "é"))
    assert len({session.secret, session.token, keys[0]}) == 3 and len(session.secret) >= 43


def test_a_rate_lets_a_few_through_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    rate = Rate(2.0, 3, now=clock)
    assert [rate.take() for _ in range(5)] == [True, True, True, False, False]
    clock.now = 1.0
    assert [rate.take() for _ in range(3)] == [True, True, False]
    clock.now = 1000.0
    assert [rate.take() for _ in range(4)] == [True, True, True, False]
