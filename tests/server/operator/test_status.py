"""A server's status in sentences: what runs, how far the run is, and what it waits for."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import server.operator.facts
from server.certificate_authority import SERVER_LIFETIME, issue_server
from server.cli.app import cli
from server.flower.control import Control
from server.operator.facts import state_of
from server.operator.status_text import in_sentences, progress_line, waits_for
from server.run_store.store import Store
from server.settings import Home
from shared.errors import RunError, SettingsError
from shared.study.declaration import Study

Studies = Callable[..., Study]
ROUND = {"round": 1, "outcome": "aggregated", "asked": [], "accepted": [], "refused": [], "rejected": [], "missing": []}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as opened:
        yield opened


def enrol(store: Store, name: str, number: int) -> None:
    now = datetime.now(UTC)
    store.invite(name, name, now + timedelta(days=1))
    store.enrol(name, f"key of {name}", number, now)


def facts(**changes: Any) -> dict[str, Any]:
    usual = {"state": "runs", "address": "fl:8443", "processes": {}, "silent": [], "flower_database_bytes": 2**21}
    return (
        usual
        | {"certificate_ends": "2031-01-02T00:00:00+00:00", "renew_due": False}
        | {
            "certificates": ["The server's certificate ends 2031-01-02."],
            "without_new_authority": None,
        }
        | changes
    )


def test_a_run_says_what_it_waits_for(store: Store, make_study: Studies) -> None:
    study = make_study(federation={"quorum": 3})
    run = store.create_run(study)
    assert waits_for(run, store).endswith("0 of 3 nodes. No node is enrolled: fedvault-server invite NAME")
    enrol(store, "north", 11)
    enrol(store, "west", 12)
    assert "Only 2 are enrolled" in waits_for(run, store)
    enrol(store, "east", 13)
    store.record_event("present", {"approved": [11], "awaiting_approval": [12, 13]}, run=run.id)
    assert waits_for(run, store) == (
        f"{run.id} waits for approvals: 1 of 3 nodes. approved: north; awaiting approval: west, east. "
        f"Their operators decide: fedvault-node approve {run.id}"
    )
    behind = store.create_run(study)
    assert waits_for(behind, store) == f"{behind.id} waits for {run.id}: one run is driven at a time."


def test_a_run_that_is_under_way_says_its_round_with_a_bar(store: Store, make_study: Studies) -> None:
    run = store.create_run(make_study(federation={"quorum": 1, "rounds": 4}))
    enrol(store, "north", 11)
    store.set_state(run.id, "running")
    store.record_round(run.id, ROUND, None)
    store.record_event("asked", {"round": 2, "nodes": [11], "ask": 1}, run=run.id)
    line = progress_line(store.run(run.id), store)
    assert line == f"{run.id}: round 2 of 4 [#####...............]: ask 1 of at most 10, waits for north"


def test_every_standing_of_a_run_is_said(store: Store, make_study: Studies) -> None:
    runs = [store.create_run(make_study()).id for _ in range(4)]
    store.set_state(runs[0], "failed", reason="why")
    store.set_state(runs[1], "running")
    store.set_state(runs[2], "waiting", reason="cannot reach its quorum: 3 refused budget")
    assert [store.run(run).standing(runs[1]) for run in runs] == [
        "failed: why",
        "running",
        "cannot reach its quorum: 3 refused budget",
        f"behind {runs[1]}",
    ]
    assert store.run(runs[3]).standing(runs[3]) == "queued" and store.run(runs[3]).standing(None) == "queued"
    assert waits_for(store.run(runs[2]), store).startswith(
        f"{runs[2]} cannot reach its quorum: 3 refused budget. Queue"
    )
    store.set_state(runs[2], "waiting", reason="its process was killed")
    assert waits_for(store.run(runs[2]), store) == (
        f"{runs[2]} steps aside for other runs while it is tried again: its process was killed."
    )
    store.want(runs[3], wanted=False)
    assert store.run(runs[3]).standing(runs[1]) == "stopped"


def test_a_run_whose_nodes_went_away_says_how_far_it_is_and_what_it_waits_for(
    store: Store, make_study: Studies
) -> None:
    run = store.create_run(make_study(federation={"quorum": 2, "rounds": 4}))
    store.record_round(run.id, ROUND, None)
    store.set_state(run.id, "waiting", reason="waiting for nodes: 1 of 2 are present")
    line = progress_line(store.run(run.id), store)
    assert line == f"{run.id}: 1 of 4 rounds [#####...............]: waiting for nodes: 1 of 2 are present"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "The server runs at fl:8443."),
        ({"state": "starting", "silent": ["superlink"]}, "The server is starting up: superlink does not answer yet."),
        ({"state": "stopped"}, "The server does not run. Start it: fedvault-server start"),
        ({"state": "troubled", "silent": ["superlink", "gateway"]}, "but superlink and gateway do not answer:"),
        ({"certificates": ["The server's certificate ends 2031-01-02."]}, "The server's certificate ends 2031-01-02."),
        ({"without_new_authority": ["west"]}, "Nodes that have not heard of the new one: west."),
        ({"without_new_authority": []}, "Every node knows the new authority: fedvault-server halt, then"),
        (
            {"processes": {"gateway": {"pid": None, "failures": 1, "last_exit": 1, "since": ""}}},
            "gateway ended by itself once (exit code 1) and is being started again: see fedvault-server logs.",
        ),
    ],
)
def test_every_state_is_a_sentence_and_never_a_dict(store: Store, changes: dict[str, Any], sentence: str) -> None:
    enrol(store, "north", 11)
    said = "\n".join(in_sentences(facts(**changes), store, {11}))
    assert sentence in said and "1 node is enrolled, 1 present (north)." in said and "Queue one: " in said
    assert not set("{}") & set(said) and "None" not in said and "False" not in said


def test_a_process_that_is_young_is_starting_up_and_an_old_one_in_trouble() -> None:
    def child(age_s: int, **changes: Any) -> dict[str, Any]:
        since = datetime.now(UTC) - timedelta(seconds=age_s)
        return {"pid": 7, "failures": 0, "last_exit": None, "since": since.isoformat()} | changes

    young, old, dead = child(5), child(500), child(5, failures=1, pid=None)
    silent, answering = {"superlink": False, "gateway": True}, {"superlink": True, "gateway": True}
    assert state_of({}, silent) == "starting", "the supervisor has started nothing so far"
    assert state_of({"superlink": young, "gateway": young}, silent) == "starting"
    assert state_of({"superlink": old, "gateway": young}, silent) == "troubled"
    assert state_of({"superlink": old, "gateway": old}, answering) == "runs"
    assert state_of({"superlink": old, "gateway": old, "run-1": dead}, answering) == "troubled"


def test_status_of_a_server_that_does_not_run(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "federation")]
    assert CliRunner().invoke(cli, ["init", "--host", "localhost", "--port", "1", *home]).exit_code == 0
    settings = Home(tmp_path / "federation").config
    settings.write_text(f"{settings.read_text()}superlink_port = 2\n")
    said = CliRunner().invoke(cli, ["status", *home])
    assert said.exit_code == 0 and said.stdout.startswith("The server does not run.") and "{" not in said.stdout
    assert CliRunner().invoke(cli, ["status", "--check", *home]).exit_code == 1
    shown = json.loads(CliRunner().invoke(cli, ["status", "--json", *home]).stdout)
    assert (shown["running"], shown["ready"], shown["run"], shown["state"]) == (False, False, None, "stopped")
    assert isinstance(CliRunner().invoke(cli, ["status", "--watch", "--json", *home]).exception, SettingsError)


def test_a_run_waits_for_flower_to_start_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RunError("not yet"), RunError("not yet"), None])

    def nodes(_control: Control) -> list[Any]:
        answer = next(answers, RunError("never"))
        if answer is not None:
            raise answer
        return []

    monkeypatch.setattr(Control, "nodes", nodes)
    control = Control.__new__(Control)
    control.wait_until_it_answers(every_s=0.0)
    with pytest.raises(RunError, match="never"):
        control.wait_until_it_answers(patience_s=0.0)


@pytest.mark.parametrize(("days_left", "code"), [(59, 0), (-1, 1)])
def test_a_certificate_that_ends_is_no_trouble_for_a_health_check_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days_left: int, code: int
) -> None:
    home = tmp_path / "federation"
    CliRunner().invoke(cli, ["init", "--host", "localhost", "--port", "1", "--home", str(home)])
    issue_server(home / "keys", ["localhost"], now=datetime.now(UTC) - SERVER_LIFETIME + timedelta(days=days_left))
    gathered = server.operator.facts.status_facts
    monkeypatch.setattr(server.operator.facts, "status_facts", lambda home: gathered(home) | {"state": "runs"})
    said = CliRunner().invoke(cli, ["status", "--check", "--home", str(home)])
    assert said.exit_code == code and "Renew it now: fedvault-server renew" in said.stdout
