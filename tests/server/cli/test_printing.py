"""Events look on the terminal as an operator reads them."""

from typing import Any

import pytest

from server.cli.printing import print_event
from server.run_store.values import Event


def test_events_are_printed_with_names_and_an_older_stores_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"11": "north", "12": "west"}
    events: list[tuple[str, dict[str, Any]]] = [
        ("present", {"approved": [11, 12], "no_answer_yet": [13]}),
        ("present", {"approved": 2}),
        ("asked", {"round": 1, "nodes": [11, 12]}),
        ("answered", {"round": 1, "answered": 1, "asked": 2, "node": 12, "verdict": "refused_budget"}),
        ("answered", {"round": 1, "answered": 1, "asked": 2}),
    ]
    for kind, body in events:
        print_event(Event(1, "r-1", "2030-01-01T10:11:12.000", kind, body), names, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "10:11:12  present: approved: north, west; no answer yet: 13",
        "10:11:12  present: approved: 2",
        "10:11:12  round 1 asks north, west",
        "10:11:12  round 1: 1 of 2 answered, west: refused_budget",
        "10:11:12  round 1: 1 of 2 answered",
    ]
