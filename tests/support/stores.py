"""A run store with something in every table, and everything that one holds."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from server.run_store.operators import OperatorCertificate
from server.run_store.store import Store
from shared.protocol.messages import LedgerPosition
from shared.study.declaration import Study
from tests.support.rounds import RECORDS

NODE = 2**64 - 1


def filled(store: Store, make_study: Callable[..., Study]) -> str:
    """Put something into every table; returns the name of the run."""
    run = store.create_run(make_study()).id
    for number, record in enumerate(RECORDS, start=1):
        store.record_round(run, record.as_dict(), {"accuracy": 0.1 + number / 7})
    answer = {"status": "evaluated", "histogram": [2**50, -3]}
    store.evaluations.keep_counts(run, 2, "north", answer, node=NODE, position=LedgerPosition(1, "a" * 64, "b" * 64))
    store.evaluations.finish(run, 2, {"number": 2, "epsilon": 1.0, "sigma": 4.0, "sites": ["north"], "estimates": []})
    store.invite("nörd", "hash", datetime.now(UTC) + timedelta(days=1))
    store.enrol("hash", "key", NODE, datetime.now(UTC))
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    store.operators.add(OperatorCertificate("a1b2", "anna", True, "2026-11-29", "root", ends, None))
    store.record_answer({}, run="r-1", node=NODE, position=LedgerPosition(10**12, "a" * 64, "b" * 64))
    return run


def held(url: str) -> dict[str, Any]:
    """Return all that the store of one run holds."""
    with Store(url) as store:
        (run,) = store.runs()
        facts = {"run": run.as_dict(), "nodes": store.nodes(), "names": store.names(), "rounds": store.rounds(run.id)}
        facts |= {"operators": store.operators.certificates()}
        facts |= {"evaluations": store.evaluations.of_run(run.id), "counts": store.evaluations.counts(run.id, 2)}
        return facts | {"events": store.events(run.id), "position": store.ledger_position(NODE)}
