"""Pages of a node with a long history are drawn at once, and answers of a vault that is away are a page as well."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from client.dashboard.app import Dashboard
from client.dashboard.views import measured, peers
from shared.errors import RunError
from tests.support.web import open_site

ROUNDS, NODES, AT_MOST_S = 1000, 200, 1.0


class Answers:
    """A vault that answers everything with one answer, or with an error."""

    def __init__(self, answer: Callable[[], dict[str, Any]]) -> None:
        self._answer = answer

    def ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        return self._answer()


def away() -> dict[str, Any]:
    raise RunError("Expected the vault to answer, it does not.", hint="Start it.")


def test_a_vault_that_is_away_is_said_on_the_page() -> None:
    page = Dashboard(Answers(away), "north", allow_decisions=True)
    with open_site(page.routes, page.pages) as site, httpx.Client(base_url=site.base) as http:
        http.get(site.address)
        answer = http.get("/")
        assert (
            answer.status_code == 503 and "Expected the vault to answer" in answer.text and "Start it." in answer.text
        )


def test_a_thousand_rounds_and_two_hundred_nodes_are_drawn_within_a_second() -> None:
    account = {"spent": 1.0, "earmarked": 0.5, "left": 1.5, "limit": 3.0, "delta": 1e-5, "withdrawn": False}
    run = {"dataset": "ward", "paid": 900, "rounds": ROUNDS, "earmarked": 100, "more_rounds_fit": 3, "why": "It fits."}
    line = {"time": "2026-11-29T01:00:00+00:00", "sentence": "Round 1 was charged.", "kind": "reserve"}
    answer = {
        "rows": ROUNDS,
        "head": "a" * 64,
        "unproven": "",
        "datasets": {"ward": account | {"shares_records_with": []}},
        "runs": {f"r-{number}": run for number in range(NODES)},
        "shown": [line | {"row": number} for number in range(ROUNDS, 0, -1)],
        "earlier": 0,
    }
    page = Dashboard(Answers(lambda: answer), "north", allow_decisions=False)
    named = [{"name": f"n{number}", "pinned": False, "key_sha256": "a" * 64} for number in range(NODES)]
    rows = [{"run": "r", "round": number, "accuracy": number / ROUNDS, "time": "x"} for number in range(ROUNDS)]
    with open_site(page.routes, page.pages) as site, httpx.Client(base_url=site.base) as http:
        http.get(site.address)
        http.get("/ledger")  # templates are compiled once
        since = time.monotonic()
        text = http.get("/ledger").text
        (drawing,), table = measured(rows), peers(named)
        assert time.monotonic() - since < AT_MOST_S
    assert text.count("<li") >= ROUNDS and len(table.rows) == NODES and drawing.svg.count("<circle") == ROUNDS
