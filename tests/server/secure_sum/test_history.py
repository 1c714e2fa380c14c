"""What `show` says of a run's secure sum: roster, survivors and states, and who broke a rule."""

from pathlib import Path

import pytest

from server.cli.printing import print_event
from server.rounds import participants
from server.run_store.values import Event
from server.secure_sum import opening
from server.secure_sum.history import history_lines, roster_event, sum_history
from shared.protocol.messages import Status
from tests.support.sum_server import Server


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Of a run of two rounds: in the first a share lies and a node is missing, the second is lost."""
    monkeypatch.setattr(participants, "POLL_S", 0.001)
    monkeypatch.setattr(opening, "LONGEST_POLL_S", 0.001)
    server = Server(tmp_path, 5, rounds=2)
    server.fixed_for_s = 20
    liar, silent = server.nodes[1], server.nodes[2]
    liar.tamper = lambda kind, content: content[:-10] + bytes(10) if kind == "opening" else content
    server.grid.after = lambda: silent.silent.update({"survivors"} if "opened" in server.kinds() else ())
    server.nodes[0].code = {}
    server.drive()
    assert server.roster.fixed is not None
    noted = [roster_event(server.roster.fixed), *server.events]
    return [Event(at, "r-1", "2030-01-01T10:11:12.000", kind, body) for at, (kind, body) in enumerate(noted)]


def test_a_runs_secure_sum_is_told_round_by_round(events: list[Event]) -> None:
    history = sum_history(events)
    assert history is not None and (history["threshold"], history["colluders"]) == (4, 1)
    assert list(history["nodes"]) == [f"clinic-{letter}" for letter in "abcde"]
    first, second = history["rounds"]
    assert first["state"] == "opened" and len(first["survivors"]) == 5
    assert first["blamed"] == ["clinic-b gave another share than clinic-e had announced (share)"]
    assert second["state"] == "lost" and "clinic-c" in second["reason"]
    lines = history_lines(history)
    assert lines[0] == (
        "Secure sum (masked) of 5 nodes: clinic-a, clinic-b, clinic-c, clinic-d, clinic-e. 4 of them open a sum, and "
        "it shows no update while at most 1 of them pools what they know with the server."
    )
    assert "Round 1: clinic-b gave another share than clinic-e had announced (share)." in lines


def test_a_run_without_a_secure_sum_has_no_history() -> None:
    assert sum_history([Event(1, "r-1", "", "asked", {"round": 1, "nodes": [1]})]) is None


def test_events_of_a_secure_sum_are_printed_by_name(events: list[Event], capsys: pytest.CaptureFixture[str]) -> None:
    lost = Event(99, "r-1", "2030-01-01T10:11:12.000", "lost", {"round": 3, "reason": "its time is over", "blamed": []})
    blamed = Event(98, "r-1", "2030-01-01T10:11:12.000", "blamed", {"round": 3, "name": "north", "code": "signature"})
    counts = Event(100, "r-1", "2030-01-01T10:11:12.000", "opened", {"round": 3, "nodes": 4, "purpose": "evaluation"})
    for event in [*events[:4], blamed, lost, counts]:
        print_event(event, {}, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "10:11:12  roster of the secure sum: clinic-a, clinic-b, clinic-c, clinic-d, clinic-e"
    assert lines[1].startswith("10:11:12  round 1: survivors clinic-a, ")
    assert lines[3] == "10:11:12  round 1: the sum of 5 nodes is open"
    assert lines[4:] == [
        "10:11:12  round 3: north broke a rule of the secure sum: signature",
        "10:11:12  round 3: the sum is lost: its time is over",
        "10:11:12  evaluation after round 3: the sum of 4 nodes is open",
    ]


def test_what_a_round_lost_is_in_its_history() -> None:
    bodies = [
        ("roster", {"mode": "shared", "nodes": {"a": "0", "b": "1"}, "threshold": 3, "colluders": 2}),
        ("fixed", {"round": 1, "survivors": ["a"], "missing": ["b"]}),
        ("blamed", {"round": 1, "name": "a", "code": Status.REFUSED_SURVIVORS.name.lower()}),
        ("lost", {"round": 1, "reason": "its time is over", "blamed": [{"code": "box", "dealer": "a", "holder": "b"}]}),
        ("lost", {"round": 2, "reason": "nobody came back", "blamed": []}),
    ]
    history = sum_history([Event(at, "r-1", "", kind, body) for at, (kind, body) in enumerate(bodies)])
    assert history is not None
    assert history_lines(history)[1:] == [
        "Round 1: lost, survivors a; without b; its time is over.",
        "Round 1: the answer of a breaks a rule of the secure sum (refused_survivors).",
        "Round 1: a box from a to b did not open: one of the two lies (box).",
        "Round 2: lost, survivors none; nobody came back.",
    ]
