"""What the server tells of a run: metrics, the model card, measurements on its own table; and when it begins anew."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from typer.testing import CliRunner

from server.cli import _print_event, cli
from server.export.model_card import card, rounds_paid
from server.gateway.metrics import build_metrics_app
from server.processes import Federation, flower_bytes
from server.rounds.checkpoints import State
from server.rounds.evaluation import evaluator
from server.rounds.round import RoundRecord
from server.run_store import Happened, Store
from server.settings import Home
from shared.adapted_model.model import build
from shared.privacy.noise_schedule import plan
from shared.study.declaration import Study

RECORDS = [
    RoundRecord(1, "aggregated", [11, 12], [11, 12], [], [], [], 100, 80, {"train": 2.0}),
    RoundRecord(
        2, "aggregated", [11, 12, 13], [11], [{"node": 13, "reason": "norm"}], [], [12], 100, 80, {"train": 3.0}
    ),
    RoundRecord(3, "skipped", [11], [], [], [{"node": 11, "status": "lost"}], [], 0, 80, {"train": 0.5}),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as opened:
        yield opened


async def scraped(store: Store, path: str, online: set[int] | None = None) -> list[str]:
    transport = httpx.ASGITransport(build_metrics_app(store, lambda: online))
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        return (await client.get(path)).text.splitlines()


def test_metrics_count_rounds_replies_bytes_and_seconds(store: Store, make_study: Callable[..., Study]) -> None:
    run = store.create_run(make_study())
    for record in RECORDS:
        store.record_round(run.id, record.as_dict(), None)
    store.invite("north", "0" * 64, datetime.now(UTC) + timedelta(days=1))
    told, nothing = asyncio.run(scraped(store, "/metrics")), asyncio.run(scraped(store, "/anything"))
    assert nothing == ["Not Found"]
    for line in (
        'fedvault_runs{state="queued"} 1.0',
        'fedvault_nodes{standing="invited"} 1.0',
        'fedvault_rounds_total{outcome="aggregated"} 2.0',
        'fedvault_replies_total{reason="",verdict="accepted"} 3.0',
        'fedvault_replies_total{reason="norm",verdict="rejected"} 1.0',
        'fedvault_replies_total{reason="lost",verdict="refused"} 1.0',
        'fedvault_bytes_total{direction="down"} 480.0',
        'fedvault_bytes_total{direction="up"} 300.0',
        'fedvault_round_seconds_total{phase="train"} 5.5',
    ):
        assert line in told, line


def test_metrics_say_who_is_present(store: Store) -> None:
    for number, name in enumerate(("north", "south", "west"), start=1):
        store.invite(name, name, datetime.now(UTC) + timedelta(days=1))
        store.enrol(name, name, number, datetime.now(UTC))
    store.revoke("west")
    told = asyncio.run(scraped(store, "/metrics", {1, 3}))
    present = [line for line in told if line.startswith("fedvault_node_present")]
    assert present == ['fedvault_node_present{node="north"} 1.0', 'fedvault_node_present{node="south"} 0.0']
    assert not any("present" in line for line in asyncio.run(scraped(store, "/metrics", None))), "not known, not zero"


def test_events_are_told_with_names_and_an_older_stores_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"11": "north", "12": "west"}
    told: list[tuple[str, dict[str, Any]]] = [
        ("stances", {"approved": [11, 12], "no_answer_yet": [13]}),
        ("stances", {"approved": 2}),
        ("asked", {"round": 1, "nodes": [11, 12]}),
        ("answered", {"round": 1, "answered": 1, "asked": 2, "node": 12, "verdict": "refused_budget"}),
        ("answered", {"round": 1, "answered": 1, "asked": 2}),
    ]
    for kind, body in told:
        _print_event(Happened(1, "r-1", "2030-01-01T10:11:12.000", kind, body), names, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "10:11:12  present: approved: north, west; no answer yet: 13",
        "10:11:12  present: approved: 2",
        "10:11:12  round 1 asks north, west",
        "10:11:12  round 1: 1 of 2 answered, west: refused_budget",
        "10:11:12  round 1: 1 of 2 answered",
    ]


@pytest.mark.guarantee("a round that failed, was lost, came late or was kept out counts like one that was accepted.")
def test_the_card_counts_every_round_that_a_node_may_have_paid_for() -> None:
    refused = [{"node": 12, "status": "refused_budget"}, {"node": 13, "status": "failed"}]
    last = RoundRecord(4, "skipped", [12, 13], [], [], refused, [], 0, 80, {})
    names = {11: "north", 12: "west", 13: "south", 14: "north"}
    paid = rounds_paid([record.as_dict() for record in [*RECORDS, last]], names=names)
    assert paid == {"north": {1, 2, 3}, "west": {1, 2}, "south": {2, 4}}, "lost, late, kept out and failed ones too"
    # round 5 was begun and its process died; round 4 was begun twice, so a refusal says nothing of the first time
    again = rounds_paid([last.as_dict()], names=names, asked=[(4, [12, 14]), (4, [12]), (5, [14])])
    assert again == {"north": {4, 5}, "west": {4}, "south": {4}}


def test_the_card_states_each_nodes_epsilon_for_the_rounds_it_may_have_paid(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 2.0})
    state = State(study.sha256, "r-1", 3, np.zeros(1, np.float32), [record.as_dict() for record in RECORDS], {})
    planned = plan(study.privacy, steps=study.total_steps)
    names = {11: "north", 12: "west", 13: "south"}
    lines = card("r-1", study, state, names=names).splitlines()
    assert "2 organisations in 3 rounds as run `r-1` of study" in "\n".join(lines)
    for node, rounds in ((1, 3), (2, 1), (3, 2)):
        accountant = RdpAccountant()
        step = dp_event.PoissonSampledDpEvent(planned.sampling_rate, dp_event.GaussianDpEvent(planned.noise_multiplier))
        accountant.compose(step, rounds * study.training.local_steps)
        row = next(
            line for line in card("r-1", study, state, names=names).splitlines() if line.startswith(f"| {node} |")
        )
        stated = float(row.split("|")[3])
        assert stated == pytest.approx(accountant.get_epsilon(study.privacy.delta), rel=0.02)
        assert stated <= 2.0


def test_an_adapter_is_measured_on_the_servers_own_table(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    study, table = make_study(adapter={"layers": "last:1"}), tmp_path / "own.csv"
    table.write_text("text,label\nword1 good,yes\nword2 bad word3 word4,no\nfine,maybe\n")
    length = build(study).layout.length
    adapters = [np.random.default_rng(seed).normal(0, 1, length).astype(np.float32) for seed in range(20)]
    measure = evaluator(study, table, {})
    found = [measure(0, adapter) for adapter in adapters]
    cached = evaluator(study, table, {}, cache=tmp_path / "cache")
    assert [cached(0, adapter) for adapter in adapters] == found, "keeping frozen states changes no figure"
    assert list((tmp_path / "cache").glob("*.f32"))
    assert all(entry["records"] == 2 for entry in found), "a label that the study does not know is left out"
    assert {entry["accuracy"] for entry in found} <= {0.0, 0.5, 1.0} and len({entry["accuracy"] for entry in found}) > 1


def test_a_run_is_stopped_and_resumed_with_its_state_as_json(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    (tmp_path / "server.toml").write_text('hosts = ["127.0.0.1"]\n')
    with Store(Home(tmp_path).database()) as opened:
        run = opened.create_run(make_study()).id
    for command, state, wanted in (("stop", "stopped", False), ("resume", "queued", True)):
        done = CliRunner().invoke(cli, [command, run, "--json", "--home", str(tmp_path)])
        shown = json.loads(done.stdout)
        assert (shown["id"], shown["state"], shown["wanted"]) == (run, state, wanted)


def test_the_processes_logs_are_json_to_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('hosts = ["127.0.0.1"]\n')
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gateway.log").write_text('{"level": "info", "message": "up"}\nTraceback of a library\n17\n')
    done = CliRunner().invoke(cli, ["logs", "--json", "--home", str(tmp_path)])
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"level": "info", "message": "up"},
        {"process": "gateway", "message": "Traceback of a library"},
        {"process": "gateway", "message": "17"},
    ]


def test_flowers_database_is_begun_anew_between_runs_and_never_during_one(
    tmp_path: Path, store: Store, make_study: Callable[..., Study]
) -> None:
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\nflower_database_limit_bytes = 1048576\n')
    home.flower.mkdir()
    federation = Federation(home, store)

    def names() -> list[str]:
        return [child.name.split("-")[0] for child in federation.wanted()]

    assert names() == ["superlink", "gateway"]
    (home.flower / "state.db").write_bytes(bytes(2**21))
    run: Any = store.create_run(make_study())
    assert names() == ["superlink", "gateway", "run"] and flower_bytes(home) == 2**21
    store.want(run.id, wanted=False)
    assert names() == ["gateway"], "the SuperLink is stopped before its files go"
    assert flower_bytes(home) == 2**21
    assert names() == ["superlink", "gateway"] and flower_bytes(home) == 0


def test_a_run_that_is_queued_while_the_superlink_stops_keeps_flowers_database(
    tmp_path: Path, store: Store, make_study: Callable[..., Study]
) -> None:
    home = Home(tmp_path)
    home.config.write_text('hosts = ["127.0.0.1"]\nflower_database_limit_bytes = 1048576\n')
    home.flower.mkdir()
    (home.flower / "state.db").write_bytes(bytes(2**21))
    federation = Federation(home, store)
    assert len(federation.wanted()) == 1, "the SuperLink is being stopped"
    run = store.create_run(make_study())
    assert len(federation.wanted()) == 3
    store.want(run.id, wanted=False)
    assert [child.name for child in federation.wanted()] == ["gateway"], "stopped again first, the run had started it"
    assert flower_bytes(home) == 2**21
