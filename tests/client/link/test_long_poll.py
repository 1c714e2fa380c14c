"""Waiting at the server, beside everything else that a link does."""

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from client.link import long_poll
from client.link.long_poll import LongPoll, NoWaiting


@pytest.fixture
def over() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def begun(ask: Callable[[], bool], over: threading.Event) -> LongPoll:
    waiting = LongPoll(ask, over)
    waiting.start()
    return waiting


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_a_wait_returns_when_there_is_something(over: threading.Event) -> None:
    stored = threading.Semaphore(0)
    answers = iter([False])

    def ask() -> bool:
        return next(answers, None) is None and stored.acquire(timeout=10)

    waiting = begun(ask, over)
    until(lambda: waiting.works)
    threading.Timer(0.1, stored.release).start()
    began = time.monotonic()
    waiting.wait(10.0, lambda: False)
    assert time.monotonic() - began < 5
    stored.release()


def test_a_wait_ends_with_the_link_and_with_its_time(over: threading.Event) -> None:
    waiting = begun(lambda: over.wait(0.01), over)
    until(lambda: waiting.works)
    began = time.monotonic()
    waiting.wait(0.2, lambda: False)
    waiting.wait(60.0, lambda: True)
    assert 0.2 <= time.monotonic() - began < 5


@pytest.mark.parametrize("something", [True, False])
def test_a_server_that_answers_at_once_for_ever_keeps_no_processor_busy(
    over: threading.Event, *, something: bool
) -> None:
    asked = list[None]()

    def ask() -> bool:
        asked.append(None)
        return something

    waiting = begun(ask, over)
    until(lambda: len(asked) > long_poll.MOST_QUICK)
    over.wait(0.3)
    assert len(asked) <= long_poll.MOST_QUICK + 2 and waiting.works


def test_a_server_that_goes_away_is_asked_as_before_until_it_is_back(
    over: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "PAUSE_S", 0.01)
    away = threading.Event()

    def ask() -> bool:
        if away.is_set():
            raise httpx.ConnectError("no route")
        return over.wait(0.01)

    waiting = begun(ask, over)
    until(lambda: waiting.works)
    away.set()
    until(lambda: not waiting.works)
    waiting.wait(60.0, lambda: False)  # returns at once: the link polls
    away.clear()
    until(lambda: waiting.works)


def test_an_older_server_is_not_asked_to_wait_again(over: threading.Event) -> None:
    asked = []

    def ask() -> bool:
        asked.append(1)
        raise NoWaiting("it is older")

    waiting = begun(ask, over)
    waiting._thread.join(5)
    assert asked == [1] and not waiting.works
