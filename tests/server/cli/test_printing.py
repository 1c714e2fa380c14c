"""Events look on the terminal as an operator reads them."""

from typing import Any

import pytest

from server.cli.printing import print_event
from server.operator.reasons import OF_DOUBT, OF_REASON, OF_STATUS, in_words
from server.operator.round_text import in_flight_line, reason_lines, round_in_flight
from server.rounds.round import Reason
from server.run_store.values import Event
from shared.protocol.messages import Status


def test_events_are_printed_with_names_and_an_older_stores_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"11": "north", "12": "west"}
    events: list[tuple[str, dict[str, Any]]] = [
        ("present", {"approved": [11, 12], "no_answer_yet": [13]}),
        ("present", {"approved": 2}),
        ("asked", {"round": 1, "nodes": [11, 12]}),
        ("answered", {"round": 1, "answered": 1, "asked": 2, "node": 12, "verdict": "refused_budget"}),
        ("answered", {"round": 1, "answered": 1, "asked": 2}),
        ("gone", {"round": 1, "node": 11}),
        ("asked", {"round": 1, "nodes": [11, 13], "again": [11], "ask": 2}),
        ("asked", {"round": 1, "nodes": [], "again": [], "ask": 3}),
    ]
    for kind, body in events:
        print_event(Event(1, "r-1", "2030-01-01T10:11:12.000", kind, body), names, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "10:11:12  present: approved: north, west; no answer yet: 13",
        "10:11:12  present: approved: 2",
        "10:11:12  round 1 asks north, west",
        f"10:11:12  round 1: 1 of 2 answered, west: {in_words('refused_budget')}",
        "10:11:12  round 1: 1 of 2 answered",
        "10:11:12  round 1: north has lost its connection",
        "10:11:12  round 1, ask 2 of at most 10, asks north, 13; again: north",
        "10:11:12  round 1, ask 3 of at most 10, asks nobody who is present",
    ]


def test_the_round_in_flight_says_which_ask_it_is_and_whom_it_waits_for() -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("asked", {"round": 1, "nodes": [11, 12]}),
        ("answered", {"round": 1, "answered": 1, "asked": 2, "node": 11, "verdict": "accepted"}),
        ("round", {"round": 1, "outcome": "aggregated"}),
        ("asked", {"round": 2, "nodes": [11, 12, 13], "again": [], "ask": 1}),
        ("answered", {"round": 2, "answered": 1, "asked": 3, "node": 11, "verdict": "accepted"}),
        ("asked", {"round": 2, "nodes": [12], "again": [12], "ask": 2}),
    ]
    events = [Event(number, "r-1", "", kind, body) for number, (kind, body) in enumerate(bodies)]
    in_flight = round_in_flight(events, 1)
    assert in_flight == {"round": 2, "ask": 2, "most_asks": 10, "waits_for": [12, 13]}
    assert in_flight_line(in_flight, {"12": "west"}) == "round 2: ask 2 of at most 10, waits for west, 13"
    assert round_in_flight(events[:3], 1) is None, "nothing is asked yet"
    again = [*events, Event(9, "r-1", "", "asked", {"round": 2, "nodes": [11, 12], "again": [11, 12], "ask": 2})]
    resumed = round_in_flight(again, 1)
    assert resumed is not None and resumed["waits_for"] == [11, 12, 13], "a new process asks everybody anew"


def test_every_reason_that_a_node_can_give_is_said_in_words() -> None:
    assert set(OF_STATUS) == {status.name.lower() for status in Status} - {"trained", "evaluated"}
    assert set(OF_REASON) == set(Reason)
    for code in OF_STATUS | OF_REASON:
        assert in_words(code).endswith(f" ({code})") and len(in_words(code).split()) > 4
    assert in_words("refused_something_newer") == "refused_something_newer"


def test_what_fails_at_one_site_in_the_first_round_is_said_in_words() -> None:
    record = {"round": 1, "refused": [{"node": 11, "status": "refused_model"}], "rejected": []}
    record["rejected"] = [{"node": 12, "reason": "norm"}]
    events = [Event(1, "r-1", "", "present", {"approved": [12], "refused_policy": [11], "no_answer_yet": [13]})]
    assert reason_lines([record], events, {"11": "north", "12": "west"}) == [
        f"round 1: north: {OF_STATUS['refused_model']} (refused_model)",
        "round 1: west: its update is larger than noise and clipping can make it (norm)",
        f"to the offer: north: {OF_STATUS['refused_policy']} (refused_policy)",
    ]
    quiet = {"round": 2, "refused": [], "rejected": [], "quiet": [12]}
    (line,) = reason_lines([quiet], [], {"12": "west"})
    assert line == f"round 2: west: {OF_DOUBT['quiet']} (quiet)"
    assert reason_lines([], [], {}) == []
