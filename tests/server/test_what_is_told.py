"""What the server tells of a run: metrics, the model card, measurements on its own table; and when it begins anew."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from server.checkpoints import State
from server.evaluation import evaluator
from server.federation import Federation, flower_bytes
from server.metrics import build_metrics_app
from server.model_card import card
from server.rounds import RoundRecord
from server.settings import Home
from server.store import Store
from shared.adapted_model import build
from shared.privacy.planning import plan
from shared.study import Study

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


async def scraped(store: Store, path: str) -> list[str]:
    transport = httpx.ASGITransport(build_metrics_app(store))
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
        'fedvault_replies_total{reason="norm",verdict="quarantined"} 1.0',
        'fedvault_replies_total{reason="lost",verdict="refused"} 1.0',
        'fedvault_bytes_total{direction="down"} 480.0',
        'fedvault_bytes_total{direction="up"} 300.0',
        'fedvault_round_seconds_total{phase="train"} 5.5',
    ):
        assert line in told, line


def test_the_card_states_each_nodes_epsilon_for_the_rounds_it_was_in(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 2.0})
    state = State(study.sha256, "r-1", 3, np.zeros(1, np.float32), [record.as_dict() for record in RECORDS], {})
    planned = plan(study.privacy, steps=study.total_steps)
    for node, rounds in ((1, 2), (2, 1)):
        accountant = RdpAccountant()
        step = dp_event.PoissonSampledDpEvent(planned.sampling_rate, dp_event.GaussianDpEvent(planned.noise_multiplier))
        accountant.compose(step, rounds * study.training.local_steps)
        row = next(line for line in card("r-1", study, state).splitlines() if line.startswith(f"| {node} |"))
        stated = float(row.split("|")[3])
        assert stated == pytest.approx(accountant.get_epsilon(study.privacy.delta), rel=0.02)
        assert stated <= 2.0


def test_an_adapter_is_measured_on_the_servers_own_table(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    study, table = make_study(), tmp_path / "own.csv"
    table.write_text("text,label\nword1 good,yes\nword2 bad word3 word4,no\nfine,maybe\n")
    measure = evaluator(study, table, {})
    length = build(study).layout.length
    found = [measure(0, np.random.default_rng(seed).normal(0, 1, length).astype(np.float32)) for seed in range(6)]
    assert all(entry["records"] == 2 for entry in found), "a label that the study does not know is left out"
    assert {entry["accuracy"] for entry in found} <= {0.0, 0.5, 1.0} and len({entry["accuracy"] for entry in found}) > 1


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
