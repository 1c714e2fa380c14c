"""Bars, a status that is drawn again, and what a command says while it takes long."""

import time

import pytest

from shared.terminal import Activity, bar, saying, watched


@pytest.mark.parametrize(
    ("done", "total", "filled"), [(0, 4, 0), (1, 4, 5), (4, 4, 20), (9, 4, 20), (-1, 4, 0), (0, 0, 20), (1, 3, 6)]
)
def test_a_bar_is_as_full_as_what_is_done(done: int, total: int, filled: int) -> None:
    assert bar(done, total) == f"[{'#' * filled}{'.' * (20 - filled)}]"


def test_a_watched_status_is_gathered_anew_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    states = iter(["first", "second", "third"])
    watched(lambda: [next(states)], every_s=0.0, times=3)
    assert capsys.readouterr().out == "first\nsecond\nthird\n"


def test_ctrl_c_ends_the_watching_without_a_traceback() -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    watched(interrupted)


def test_a_quick_command_says_nothing_and_a_long_one_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with saying("Reading the records"):
        pass
    assert capsys.readouterr().err == ""
    with saying("Reading the records", quiet_for_s=0.05, again_s=0.05) as activity:
        activity.now("Reading the records", 3, 4)
        time.sleep(0.3)
        activity.now("Comparing with the ledger")
        time.sleep(0.3)
    out, err = capsys.readouterr()
    assert out == "", "stdout is for what was asked for"
    assert "Reading the records … [###############.....] 3 of 4 (0 s)\n" in err
    assert "Comparing with the ledger … (0 s)\n" in err


def test_what_is_done_now_has_its_own_progress() -> None:
    activity = Activity("One")
    activity.now("One", 1, 2)
    activity.now("Two")
    assert activity.line() == "Two … (0 s)"
