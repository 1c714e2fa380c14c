"""What no retry mends is failed, what passes is tried again."""

import errno
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from server.flower.control import call_flower
from server.flower.patience import FlowerAwayError, FlowerFaultError, FlowerRefusedError, Patience, flower_failures
from server.run_store.store import RESUMED
from server.run_store.values import Event
from server.runs.ends import (
    INTERRUPTED,
    KILLED,
    STARTED,
    TRIES,
    as_event,
    ends_in_a_row,
    has_failed,
    mends_by_itself,
    steps_aside,
)
from server.runs.ends import needs_a_person as gives_up
from shared.errors import DataError, RunError, SettingsError


def events(*kinds: str | tuple[str, dict[str, Any]]) -> list[Event]:
    pairs = [(kind, {}) if isinstance(kind, str) else kind for kind in kinds]
    return [Event(number, "r-1", "", kind, body) for number, (kind, body) in enumerate(pairs, start=1)]


def ends(reason: str, *, mends: bool = False) -> tuple[str, dict[str, Any]]:
    return INTERRUPTED, {"reason": reason, "mends_by_itself": mends}


CRASH = (STARTED, "present", "asked", "answered", ends("KeyError: 'adapter'"))


def test_the_same_end_over_and_over_is_a_failure_in_words() -> None:
    assert has_failed(events(*CRASH * (TRIES - 1))) == ""
    assert has_failed(events(*CRASH * TRIES)) == (
        f"its process ended {TRIES} times in a row in the same way: KeyError: 'adapter'"
    )


@pytest.mark.parametrize("progress", ["round", RESUMED])
def test_a_finished_round_and_a_person_begin_the_count_anew(progress: str) -> None:
    assert ends_in_a_row(events(*CRASH * 7, progress, *CRASH * 2)) == (2, "KeyError: 'adapter'")


def test_another_end_begins_the_count_anew() -> None:
    assert ends_in_a_row(events(*CRASH * 7, STARTED, ends("ValueError: no")))[0] == 1


def test_what_passes_never_ends_a_run() -> None:
    away = (STARTED, ends("Expected Flower's SuperLink to answer", mends=True))
    assert has_failed(events(*away * 1000)) == ""
    assert ends_in_a_row(events(*CRASH * 3, *away * 50, *CRASH))[0] == 4, "nor does it hide what does not pass"


@pytest.mark.parametrize("exit_code", [None, -signal.SIGKILL, -signal.SIGTERM])
def test_kills_from_outside_are_no_failure_and_who_never_begins_steps_aside(exit_code: int | None) -> None:
    killed = (STARTED, {"after_exit": exit_code})
    for history in ((killed, "present", "asked") * 40, (killed,) * 100, ((STARTED, {}),) * 100):
        assert has_failed(events(*history)) == ""
    assert steps_aside(events(*(killed, "present") * 40, *[killed] * TRIES)) == ""
    assert steps_aside(events("present", *[killed] * (TRIES + 1))) == KILLED
    assert steps_aside(events(*[killed] * TRIES, "present", killed)) == ""


@pytest.mark.parametrize("exit_code", [0, 1, 137, -signal.SIGSEGV, -signal.SIGABRT])
def test_a_process_that_crashes_by_itself_fails_its_run_however_far_it_came(exit_code: int) -> None:
    crashed = (STARTED, {"after_exit": exit_code}), "present", "asked", "answered"
    assert has_failed(events(*crashed * TRIES)) == ""
    assert f"exit code {exit_code} and no error" in has_failed(events(*crashed * (TRIES + 1)))
    assert has_failed(events(*crashed * TRIES, "round", *crashed)) == "", "it has finished a round"
    reported = (*crashed, ends("Flower is away", mends=True))
    assert has_failed(events(*reported * 100)) == "", "what ended it is known"


def answers(status: int) -> Callable[..., Any]:
    def call(*_: object) -> None:
        httpx.Response(status, request=httpx.Request("POST", "http://flower")).raise_for_status()

    return call


def raises(action: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as raised:
        action()
    return raised.value


def nonsense() -> None:
    with flower_failures("answer"):
        raise KeyError("node-1", id(object()))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 413, 500, 502, 503])
def test_a_call_that_flower_refuses_or_fails_at_is_tried_a_few_times_and_one_that_is_away_for_ever(status: int) -> None:
    patience = Patience(0.0)
    for error in (raises(lambda: patience.invoke(answers(status))), raises(lambda: call_flower(answers(status), 0))):
        ended = (STARTED, "present", "asked", (INTERRUPTED, as_event(error)))
        assert has_failed(events(*ended * (TRIES - 1))) == ""
        assert (has_failed(events(*ended * TRIES)) != "") == (status < 502), "whoever is behind it has its turn"
        assert str(status) in str(error)


def test_a_refusal_in_other_words_each_time_is_a_refusal_all_the_same() -> None:
    history = [(INTERRUPTED, as_event(raises(nonsense))) for _ in range(TRIES)]
    history[3:3] = [(INTERRUPTED, as_event(raises(lambda: Patience(0.0).invoke(answers(403)))))]
    assert "Expected Flower to answer, got KeyError" in has_failed(events(*history))


@pytest.mark.parametrize(
    ("error", "person", "passes"),
    [
        (SettingsError("x"), True, False),
        (DataError("x"), True, False),
        (FlowerAwayError("Flower is away"), False, True),
        (FlowerFaultError("Flower answers 500"), False, False),
        (FlowerRefusedError("Flower answers 403"), False, False),
        (RunError("x"), False, False),
        (IntegrityError("x", {}, Exception()), False, False),
        (httpx.ConnectError("x"), False, True),
        (OperationalError("x", {}, Exception()), False, True),
        (OSError(errno.ENOSPC, "No space left on device"), False, True),
        (ConnectionResetError("x"), False, True),
        (FileNotFoundError("x"), False, False),
        (ValueError("x"), False, False),
        (MemoryError(), False, False),
    ],
)
def test_every_error_has_its_consequence(error: Exception, person: bool, passes: bool) -> None:
    assert (gives_up(error), mends_by_itself(error) and not gives_up(error)) == (person, passes)
