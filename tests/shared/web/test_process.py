"""A page is reached from this machine alone."""

import os
import pty
import re
import threading

import pytest

from shared.errors import RunError
from shared.web.process import address, expiry, invitation, listening, look_after
from shared.web.sessions import Sessions
from simulations.e2e.federation import wait_until


@pytest.mark.guarantee(
    "a page listens on loopback alone, unless it runs in a container whose engine publishes its port."
)
def test_a_page_listens_on_loopback() -> None:
    with listening() as opened, listening(container_publishes=True) as inside:
        assert opened.getsockname()[0] == "127.0.0.1" and inside.getsockname()[0] == "0.0.0.0"  # noqa: S104
        assert address(opened.getsockname()[1], "k").startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_named() -> None:
    with listening() as opened:
        port = opened.getsockname()[1]
        with pytest.raises(RunError, match=f"port {port} to be free"):
            listening(port)


def test_it_is_said_in_time_that_an_address_has_expired_and_enter_brings_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, said, now, ended = list[str](), list[str](), [0.0], threading.Event()
    sessions = Sessions(
        keys.append, expired=lambda: said.append(expiry(60, terminal=True)), key_life_s=60, now=lambda: now[0]
    )
    person, terminal = pty.openpty()
    monkeypatch.setattr("shared.web.process.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(os, "tcgetpgrp", lambda _terminal: os.getpgrp())
    thread = threading.Thread(target=look_after, args=(sessions, terminal, ended.is_set))
    thread.start()
    try:
        now[0] = 61.0
        wait_until(lambda: said, "nobody came, and that is said", timeout_s=10)
        assert re.search("within 1 minutes?; it opens nothing any more. Press Enter", said[0]) and len(keys) == 1
        os.write(person, b"\n")
        wait_until(lambda: len(keys) == 2, "there is another", timeout_s=10)
    finally:
        ended.set()
        thread.join()
        os.close(person)
        os.close(terminal)
    assert "Start the page again" in expiry(60, terminal=False)
    assert invitation("http://x", 600).endswith("it opens once, within 10 minutes: http://x")
