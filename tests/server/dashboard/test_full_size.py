"""Two hundred nodes after a thousand rounds, with every row that such a run leaves: each page is drawn in a second."""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.dashboard.site import A_PAGE, server_pages
from server.rounds.round import RoundRecord
from shared.study.declaration import Study
from tests.support.server_page import ServerInPieces
from tests.support.web import OpenSite, open_site

NODES, ROUNDS, FIRST, AT_MOST_S = 200, 1000, 11, 1.0
WHEN = "2026-11-29T01:00:00+00:00"
NUMBERS = list(range(FIRST, FIRST + NODES))
ANSWERS = """
    INSERT INTO events (run, time, kind, body)
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :nodes * :rounds)
    SELECT :run, :time, 'answered', json_object('round', i / :nodes + 1, 'answered', i % :nodes + 1,
        'asked', :nodes, 'node', :first + i % :nodes, 'verdict', 'accepted') FROM n
"""


def record(number: int) -> dict[str, Any]:
    """Return what a round leaves in which a few nodes of different kinds gave no update."""
    late, norm, hours = NUMBERS[number % 7], NUMBERS[50 + number % 5], NUMBERS[100 + number % 3]
    accepted = [node for node in NUMBERS if node not in (late, norm, hours)]
    rejected, refused = [{"node": norm, "reason": "norm"}], [{"node": hours, "status": "refused_hours"}]
    sizes = (24_576, 24_576)
    return RoundRecord(
        number, "aggregated", NUMBERS, accepted, rejected, refused, [late], *sizes, {"train": 41.0}
    ).as_dict()


def write(server: ServerInPieces) -> None:
    """Write what a run of a thousand rounds over two hundred nodes leaves, straight into the run store's tables."""
    with closing(sqlite3.connect(server.home.database().removeprefix("sqlite:///"))) as database, database:
        database.executemany(
            "INSERT INTO nodes (name, public_key, node_id, invited, enrolled, token_sha256, token_expires,"
            " ledger_height, ledger_head, ledger_mac) VALUES (?, ?, ?, ?, ?, ?, ?, 0, '', '')",
            [(f"node-{n:03}", f"key-{n}", str(n), WHEN, WHEN, f"hash-{n}", WHEN) for n in NUMBERS],
        )
        database.executemany(
            "INSERT INTO numbers (node_id, name) VALUES (?, ?)", [(str(n), f"node-{n:03}") for n in NUMBERS]
        )
        sizes = {"nodes": NODES, "rounds": ROUNDS, "first": FIRST}
        database.execute(ANSWERS, sizes | {"run": server.run, "time": WHEN})
        for number in range(1, ROUNDS + 1):
            one, quality = record(number), {"accuracy": 0.9 - 0.4 / number, "records": 412}
            written, measured = json.dumps(one), json.dumps(quality)
            database.execute("INSERT INTO rounds VALUES (?, ?, ?, ?)", (server.run, number, written, measured))
            body = json.dumps(one | {"evaluation": quality})
            database.execute(
                "INSERT INTO events (run, time, kind, body) VALUES (?, ?, 'round', ?)", (server.run, WHEN, body)
            )


@pytest.fixture
def opened(tmp_path: Path, make_study: Callable[..., Study]) -> Iterator[OpenSite]:
    server = ServerInPieces(tmp_path / "federation", [])
    server.begin(make_study(federation={"rounds": ROUNDS + 1}))
    write(server)
    server.numbers |= {f"node-{n:03}": n for n in NUMBERS}
    server.observer.asks(ROUNDS + 1, NUMBERS)
    with open_site(server.site().routes(), server_pages("fl.example.org")) as site:
        site.run = server.run  # type: ignore[attr-defined]
        yield site
    server.store.close()


def test_every_page_of_a_large_federation_is_drawn_within_a_second(opened: OpenSite) -> None:
    run = opened.run  # type: ignore[attr-defined]
    with closing(httpx.Client(base_url=opened.base, timeout=60)) as http:
        http.get(opened.address)
        http.get("/log")  # templates are compiled once
        sizes = dict[str, int]()
        for path in (
            f"/runs/{run}",
            "/",
            "/nodes",
            "/runs",
            f"/runs/{run}?page=19&nodes=3",
            f"/confirm/stop?run={run}",
        ):
            took = math.inf
            for _ in range(3):  # what other tests left behind in this process has its own threads
                began = time.process_time()
                answer = http.get(path)
                took = min(took, time.process_time() - began)
            assert answer.status_code == 200 and took < AT_MOST_S, (path, took)
            sizes[path] = len(answer.text)
        shown = http.get(f"/runs/{run}").text
    # two tables of a page each, with a row of titles
    assert shown.count("<tr") == 2 * A_PAGE + 2 and "1,000 of 1,001" in shown
    assert "Page 1 of 20" in shown and "Page 1 of 4" in shown
    assert max(sizes.values()) < 100_000
