"""The page's pure parts: the round under way, the nodes, the time that is left, and one look at a long run."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.dashboard.confirmed import Actions
from server.dashboard.nodes import counted, node_lines
from server.dashboard.under_way import in_time, listed, minutes_left, under_way
from server.flower.control import FlowerNode
from server.operator.actions import Operator
from server.run_store.values import Event, Node, Run
from shared.errors import DataError, SettingsError
from shared.study.declaration import Study
from tests.support.server_page import ServerInPieces

NAMES = {1: "north", 2: "south", 3: "west"}
ANNA = Operator("anna", "page, 127.0.0.1, session 12")


def events(*happened: tuple[str, dict[str, Any]]) -> list[Event]:
    return [
        Event(number, "r", f"2026-11-01T10:00:{number:02}+00:00", kind, {"round": 1} | body)
        for number, (kind, body) in enumerate(happened)
    ]


def answered(node: int, verdict: str) -> tuple[str, dict[str, Any]]:
    return "answered", {"node": node, "verdict": verdict}


def test_a_round_under_way_tells_who_answered_what_and_who_is_waited_for() -> None:
    happened = events(
        ("asked", {"nodes": [1, 2, 3]}), answered(1, "accepted"), answered(2, "norm"), ("gone", {"node": 3})
    )
    shown = under_way(happened, 0, NAMES)
    assert shown is not None and (shown.accepted, shown.answered, shown.asked) == (1, 2, 3)
    assert [(one.node, one.rejected) for one in shown.others] == [("south", True)]
    assert shown.waits_for == shown.gone == ["west"] and shown.began.endswith("10:00:00+00:00")


def test_who_is_asked_again_has_not_answered() -> None:
    again = events(("asked", {"nodes": [1, 2]}), answered(1, "accepted"), ("asked", {"nodes": [1, 2], "ask": 2}))
    shown = under_way(again, 0, NAMES)
    assert shown is not None and (shown.ask, shown.answered, shown.waits_for) == (2, 0, ["north", "south"])


@pytest.mark.parametrize("happened", [(), (("present", {"approved": [1]}),), (("asked", {"nodes": [1], "round": 7}),)])
def test_without_a_question_no_round_is_under_way(happened: Any) -> None:
    assert under_way(events(*happened), 0, NAMES) is None


def test_minutes_left_follow_the_last_rounds_and_the_time_since_the_question() -> None:
    run = Run("r", "s", "", "", True, "running", "", "", "", round=2, rounds=12)
    records = [{"seconds": {"train": 50.0, "aggregate": 10.0}}] * 2
    now = datetime(2026, 11, 1, 10, 0, 30, tzinfo=UTC)
    assert minutes_left(run, records, "", now) == 10
    assert minutes_left(run, records, (now - timedelta(seconds=30)).isoformat(), now) == 9.5
    assert minutes_left(run, records, (now - timedelta(hours=3)).isoformat(), now) == 9, "at most this round"
    assert minutes_left(run, [], "", now) is None
    assert [in_time(minutes) for minutes in (0.2, 1.0, 9.5, 300.0)] == [
        "less than a minute",
        "about 1 minute",
        "about 10 minutes",
        "about 5 hours",
    ]


def test_nodes_stand_first_that_need_an_eye() -> None:
    def node(name: str, number: int, **changes: Any) -> Node:
        return Node(
            **{"name": name, "node_id": number, "public_key": "", "invited": "i", "enrolled": "e", "revoked": None}
            | changes
        )

    nodes = [
        node("a", 1),
        node("b", 2),
        node("c", 3),
        node("d", 4, enrolled=None),
        node("e", 5, revoked="r"),
        node("f", 6),
    ]
    seen = [FlowerNode(1, "online"), FlowerNode(2, "online"), FlowerNode(3, "offline", "", 86_400.0)]
    lines = node_lines(nodes, seen, {"b": 9})
    assert [(line.name, line.standing) for line in lines] == [
        ("b", "late"),
        ("c", "away"),
        ("f", "away"),
        ("a", "present"),
        ("d", "invited"),
        ("e", "revoked"),
    ]
    assert lines[1].words == "since 1970-01-02 00:00" and lines[2].words == "has not come yet"
    assert counted(lines) == {"late": 1, "away": 2, "present": 1, "invited": 1, "revoked": 1}
    assert {line.standing for line in node_lines(nodes[:3], None, {})} == {"unknown"}


def test_many_names_are_counted_beyond_what_a_person_reads() -> None:
    assert listed(["a", "b"]) == "a, b" and listed([str(n) for n in range(200)]).endswith("23 and 176 more")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerInPieces]:
    pieces = ServerInPieces(tmp_path / "federation")
    yield pieces
    pieces.store.close()


@pytest.mark.guarantee(
    "the server's page changes nothing before its question was answered, and the event log has who did it."
)
def test_what_is_confirmed_is_done_and_stands_in_the_log(
    server: ServerInPieces, make_study: Callable[..., Study]
) -> None:
    server.begin(make_study())
    acts = Actions(server.home, server.store)
    assert "Every finished round is kept." in acts.ask("stop", {"run": server.run}).sentences
    assert server.store.run(server.run).wanted, "a question does nothing"
    acts.do("stop", {"run": server.run}, ANNA)
    assert not server.store.run(server.run).wanted
    done = acts.do("invite", {"name": "../../etc/x y", "days": "3"}, ANNA)
    (written,) = (server.home.folder / "invites").iterdir()
    assert written.stat().st_mode & 0o077 == 0 and str(written) in done.sentences[0]
    logged = [(event.kind, event.body["who"], event.body["from"]) for event in server.store.operator_events(most=9)]
    assert logged == [(kind, ANNA.who, ANNA.where) for kind in ("invite", "stop")]


@pytest.mark.parametrize(
    ("action", "form"),
    [
        ("invite", {"name": " "}),
        ("invite", {"name": "x", "days": "0"}),
        ("invite", {"name": "x", "days": "seven"}),
        ("invite", {"name": "x", "days": "9" * 5000}),
        ("invite", {"name": "two\nlines"}),
        ("run", {"file": "a\0b"}),
        ("export", {"run": "RUN", "folder": "out"}),
        ("run", {"file": "nowhere.toml"}),
        ("stop", {"run": "r-none"}),
    ],
)
def test_what_cannot_be_done_is_not_asked_about(
    server: ServerInPieces, make_study: Callable[..., Study], action: str, form: dict[str, str]
) -> None:
    server.begin(make_study())
    with pytest.raises(SettingsError):
        Actions(server.home, server.store).ask(action, form | ({"run": server.run} if form.get("run") == "RUN" else {}))
    with pytest.raises(DataError, match="an action"):
        Actions(server.home, server.store).do("__init__", form, ANNA)


def test_a_study_that_changed_since_it_was_seen_is_not_queued(
    server: ServerInPieces, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    source = make_study().model.source
    task = '[task]\nkind = "sequence-classification"\nlabels = ["n", "y"]\nmax_length = 24\n'
    rest = "[training]\nlocal_steps = 3\n[federation]\nsmallest_declared_size = 4000\n"
    file = tmp_path / "study.toml"
    file.write_text(f'[study]\nname = "seen"\n[model]\nsource = "{source}"\n{task}{rest}')
    acts = Actions(server.home, server.store)
    asked = acts.ask("run", {"file": str(file)})
    assert asked.title == "Run seen?" and any("does not state its" in line for line in asked.sentences)
    file.write_text(file.read_text().replace("local_steps = 3", "local_steps = 4"))
    with pytest.raises(SettingsError, match="changed since"):
        acts.do("run", {"file": str(file)} | asked.carries, ANNA)
    assert server.store.runs() == []
