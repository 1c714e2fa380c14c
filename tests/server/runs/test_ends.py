"""What no retry mends is failed, what passes is tried again."""

import errno
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from server.run_store.store import RESUMED
from server.run_store.values import Event
from server.runs.ends import INTERRUPTED, KILLED, STARTED, TRIES, ends_in_a_row, has_failed, mends_by_itself
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


def test_a_storm_of_kills_is_no_failure_and_a_process_that_never_begins_is() -> None:
    assert has_failed(events(*(STARTED, "present", "asked") * 40)) == ""
    assert has_failed(events(*(STARTED, "present") * 40, *[STARTED] * TRIES)) == ""
    assert KILLED in has_failed(events(*[STARTED] * (TRIES + 1)))
    assert has_failed(events(*[STARTED] * TRIES, "present", STARTED)) == ""


@pytest.mark.parametrize(
    ("error", "person", "passes"),
    [
        (SettingsError("x"), True, False),
        (DataError("x"), True, False),
        (RunError("Flower is away"), False, True),
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
