"""What only shows a result is never worth more than the result."""

import logging

import pytest

from shared.logs import without_stopping


def test_a_report_that_fails_is_named_and_the_run_continues(caplog: pytest.LogCaptureFixture) -> None:
    faults: list[str] = []
    # commands show errors alone, unless they are asked for more
    with caplog.at_level(logging.ERROR), without_stopping("report.html", faults):
        raise KeyError("a figure")
    assert "report.html could not be made (KeyError: 'a figure'); the result is complete without it." in caplog.text
    assert faults == [caplog.messages[0]]


def test_an_interruption_is_no_fault_of_a_report() -> None:
    with pytest.raises(KeyboardInterrupt), without_stopping("report.html"):
        raise KeyboardInterrupt
