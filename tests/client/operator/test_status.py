"""A node's status in sentences: true in every state, and without a dict of Python in any."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.operator.status import _totals, _vault, node_status, waiting
from client.operator.status_text import in_sentences
from client.settings import folders, load_node
from client.vault.review.node_files import open_node
from shared.protocol.messages import StudyOffer
from shared.study.declaration import Study
from tests.support.nodes import Node

Studies = Callable[..., Study]


STARTED = "2030-01-01T10:00:00+00:00"
CONNECTED = {"connected": True, "since": "2030-01-01T10:00:05+00:00", "node_id": 1, "server": "fl:8443", "trouble": ""}
AWAY = CONNECTED | {"connected": False, "trouble": "the server is away (no route)"}
JOB = {"run": "r-1", "round": 2, "steps_done": 3, "rounds": 4, "steps": 10}
PROCESS = {"pid": 7, "failures": 0, "last_exit": None, "since": STARTED}
NOTHING = {"decide": [], "resume": [], "ledger": ""}
METRICS = {"time": STARTED, "run": "r-1", "round": 1, "loss": 0.5, "accuracy": 0.8125}


def facts(**changes: Any) -> dict[str, Any]:
    processes = {"vault": PROCESS, "link": PROCESS}
    usual = {"running": True, "state": "runs", "processes": processes, "link": CONNECTED, "local_metrics": []}
    usual["certificate_ends"] = "2099-01-01T00:00:00+00:00"
    return usual | {"vault": {"busy": False, "ledger_rows": 1, "job": None}, "waiting": NOTHING} | changes


STATES: dict[str, tuple[dict[str, Any], str]] = {
    "training": (
        facts(vault={"busy": True, "ledger_rows": 9, "job": JOB}),
        "r-1: round 2 of 4 [######..............]: training step 3 of 10",
    ),
    "one study": (
        facts(waiting=NOTHING | {"decide": ["r-2"]}),
        "One study waits for your decision: r-2. See it: fedvault-node show r-2",
    ),
    "two studies": (facts(waiting=NOTHING | {"decide": ["r-2", "r-3"]}), "2 studies wait for your decision: r-2, r-3."),
    "lost rounds": (facts(waiting=NOTHING | {"resume": ["r-1"]}), "then: fedvault-node resume r-1"),
    "damaged": (facts(waiting=NOTHING | {"ledger": "Expected …"}), "The ledger needs you: Expected …"),
    "stopped": (facts(state="stopped", running=False, vault=None), "The node does not run. Start it:"),
    "starting": (facts(state="starting", vault=None), "The node is starting up: the vault does not answer yet."),
    "connecting": (facts(state="starting"), "The node is starting up: the link is connecting."),
    "away": (facts(state="troubled", link=AWAY), "Not connected to fl:8443 since 2030-01-01 10:00 UTC: the server is"),
    "a steering answer": (
        facts(state="troubled", link=AWAY | {"trouble": "the server is\x1b[2J\n* The policy allows it"}),
        r"UTC: the server is\x1b[2J * The policy allows it.",
    ),
    "busy": (facts(vault="busy, and did not answer in time"), "the vault is busy, and did not answer in time"),
    "idle": (facts(vault={"busy": False, "ledger_rows": 9, "job": JOB}), "Last was round 2 of 4 of r-1."),
    "measured": (facts(local_metrics=[METRICS]), "round 1 of r-1 on held-out records: loss 0.5, accuracy 0.8125."),
    "no figures": (facts(local_metrics=[{"time": STARTED, "run": "r-1", "round": 1}]), "no figures."),
    "link's container": (facts(waiting=None, local_metrics="in the vault's container"), "in the vault's container."),
    "dying": (
        facts(processes={"vault": PROCESS | {"failures": 2, "last_exit": -9, "pid": None}}),
        "vault ended by itself 2 times in a row (exit code -9) and is being started again: see fedvault-node logs.",
    ),
}


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> Node:
    return Node(tmp_path, tiny_bert, make_study)


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_a_sentence_and_never_a_dict(state: str) -> None:
    gathered, sentence = STATES[state]
    said = "\n".join(in_sentences(gathered))
    assert sentence in said and not set("{}") & set(said) and "None" not in said and "True" not in said


def test_a_study_waits_until_its_operator_has_decided(node: Node) -> None:
    places, offered = folders(node.config, load_node(node.config)), open_node(node.config).offers
    offered.receive(StudyOffer("r-1", node.study().canonical_json()))
    offered.receive(StudyOffer("r-2", node.study().canonical_json()))
    assert waiting(places) == {"decide": ["r-1", "r-2"], "resume": [], "ledger": ""}
    node.approve(node.study(), "r-1")
    offered.reject("r-2")
    assert waiting(places)["decide"] == []
    places.second_copy.write_text("torn")
    assert "second copy" in waiting(places)["ledger"], "a damaged ledger is a sentence too, and no end of the status"


@pytest.mark.parametrize(
    ("age_s", "failures", "connected_after_s", "state"),
    [(5, 0, None, "starting"), (500, 0, None, "troubled"), (5, 1, None, "troubled"), (5, 0, -60, "starting")],
)
def test_a_child_that_is_young_is_starting_up_and_an_old_one_in_trouble(
    node: Node, monkeypatch: pytest.MonkeyPatch, age_s: int, failures: int, connected_after_s: int | None, state: str
) -> None:
    started = datetime.now(UTC) - timedelta(seconds=age_s)
    child = {"pid": 7, "failures": failures, "last_exit": None, "since": started.isoformat()}
    processes = {"pid": 6, "processes": {"vault": child, "link": child}}
    monkeypatch.setattr("client.operator.status.read_state", lambda _folder: processes)
    places = folders(node.config, load_node(node.config))
    if connected_after_s is not None:  # what a link that was killed left behind says nothing about this one
        left = CONNECTED | {"since": (started + timedelta(seconds=connected_after_s)).isoformat()}
        places.link.mkdir(parents=True)
        (places.link / "state.json").write_text(json.dumps(left))
    assert node_status(places)["state"] == state


def test_a_socket_that_this_user_may_not_use_is_another_answer_than_no_vault(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = folders(node.config, load_node(node.config))
    assert _vault(places) is None
    places.running.mkdir(parents=True)
    places.socket.write_text("")
    monkeypatch.setattr("os.access", lambda path, _mode: path != places.socket)
    assert "another user's" in str(_vault(places))


def test_a_job_is_shown_beside_how_many_rounds_and_steps_its_study_has(node: Node) -> None:
    study = node.study()
    node.approve(study)
    places = folders(node.config, load_node(node.config))
    expected = {"rounds": study.federation.rounds, "steps": study.training.local_steps}
    assert (_totals(places, "r-1"), _totals(places, "r-9")) == (expected, {})
