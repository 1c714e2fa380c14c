"""Prometheus metrics of runs, rounds, replies and nodes."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import httpx
import pytest

from server.gateway.metrics import RoundTotals, build_metrics_app
from server.operator.reasons import OF_STATUS
from server.rounds.round import Outcome, Reason
from server.run_store.store import Store
from server.run_store.values import RunState
from shared.study.declaration import Study
from tests.support.rounds import RECORDS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as opened:
        yield opened


async def scraped(store: Store, path: str, present: set[int] | None = None) -> list[str]:
    transport = httpx.ASGITransport(build_metrics_app(store, lambda: present))
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        return (await client.get(path)).text.splitlines()


def test_metrics_count_rounds_replies_bytes_and_seconds(store: Store, make_study: Callable[..., Study]) -> None:
    run = store.create_run(make_study())
    for record in RECORDS:
        store.record_round(run.id, record.as_dict(), None)
    again = replace(RECORDS[0], round=4, asks=3, questions=5, bytes_up_per_node=0, seconds={})
    store.record_round(run.id, again.as_dict(), None)
    store.invite("north", "0" * 64, datetime.now(UTC) + timedelta(days=1))
    lines, nothing = asyncio.run(scraped(store, "/metrics")), asyncio.run(scraped(store, "/anything"))
    assert nothing == ["Not Found"]
    for line in (
        'fedvault_runs{state="queued"} 1.0',
        'fedvault_nodes{status="invited"} 1.0',
        'fedvault_rounds_total{outcome="aggregated"} 3.0',
        'fedvault_rounds_total{outcome="lost"} 1.0',
        "fedvault_asks_total 6.0",
        'fedvault_replies_total{reason="",verdict="accepted"} 5.0',
        'fedvault_replies_total{reason="norm",verdict="rejected"} 1.0',
        'fedvault_replies_total{reason="lost",verdict="refused"} 1.0',
        'fedvault_bytes_total{direction="down"} 880.0',
        'fedvault_bytes_total{direction="up"} 300.0',
        'fedvault_round_seconds_total{phase="train"} 5.5',
    ):
        assert line in lines, line


@pytest.mark.guarantee(
    "the first event of a known kind is an increase, which Prometheus sees: its series was there before."
)
def test_a_server_that_has_seen_nothing_has_a_zero_for_whatever_may_come(store: Store) -> None:
    lines = asyncio.run(scraped(store, "/metrics"))
    states = [f'fedvault_runs{{state="{state}"}} 0.0' for state in get_args(RunState)]
    rounds = [f'fedvault_rounds_total{{outcome="{outcome}"}} 0.0' for outcome in get_args(Outcome)]
    answers = [("accepted", ""), ("missing", ""), *(("rejected", str(reason)) for reason in Reason)]
    answers += [("refused", code) for code in OF_STATUS if code not in ("approved", "awaiting_approval", "rejected")]
    replies = [f'fedvault_replies_total{{reason="{reason}",verdict="{verdict}"}} 0.0' for verdict, reason in answers]
    assert not {*states, *rounds, *replies} - set(lines)


def test_metrics_say_who_is_present(store: Store) -> None:
    for number, name in enumerate(("north", "south", "west"), start=1):
        store.invite(name, name, datetime.now(UTC) + timedelta(days=1))
        store.enrol(name, name, number, datetime.now(UTC))
    store.revoke("west")
    lines = asyncio.run(scraped(store, "/metrics", {1, 3}))
    shown = [line for line in lines if line.startswith("fedvault_node_present")]
    assert shown == ['fedvault_node_present{node="north"} 1.0', 'fedvault_node_present{node="south"} 0.0']
    assert not any("present" in line for line in asyncio.run(scraped(store, "/metrics", None))), "not known, not zero"


def test_a_scrape_reads_only_rounds_that_none_has_read_before(
    store: Store, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = store.create_run(make_study()).id, list[int]()
    honest = store.round_record
    monkeypatch.setattr(store, "round_record", lambda run, number: (read.append(number), honest(run, number))[1])
    monkeypatch.setattr(store, "rounds", lambda _run: pytest.fail("every round was read"))
    monkeypatch.setattr(store, "runs", lambda: pytest.fail("every study was read"))
    totals = RoundTotals(store)
    for number in (1, 2, 4):
        store.record_round(run, replace(RECORDS[0], round=number).as_dict(), None)
    assert totals.updated().outcomes["aggregated"] == 3 and sorted(read) == [1, 2, 4]
    assert totals.updated().asks == 3 and len(read) == 3
    store.record_round(run, replace(RECORDS[0], round=3).as_dict(), None)  # only its checkpoint knew of it before
    assert totals.updated().outcomes["aggregated"] == 4 and read[3:] == [3]
    asyncio.run(scraped(store, "/metrics"))
