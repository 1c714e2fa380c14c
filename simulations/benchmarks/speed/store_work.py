"""Measure a round's work in the run store, on SQLite and on PostgreSQL: whom it asks, what they answer, its end.

CPU seconds, of the run's process and of the database's own processes: wall time says more of the disk and of whoever
else is on the machine. A commit waits for the disk on both.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text

from server.rounds.round import Round
from server.run_process import StoreObserver
from server.run_store.store import Store
from shared.protocol.messages import LedgerPosition
from simulations.e2e.postgresql import postgresql

NODES, ROUNDS, ROUNDS_BEFORE = 100, 8, 1


@dataclass(frozen=True)
class StoreWork:
    """Costs of a round's work in one kind of database."""

    database: str
    nodes: int
    cpu_ms: float
    """Of the run's process, a round."""
    database_cpu_ms: float
    """Of the database's own processes, a round; SQLite has none."""
    cpu_ms_per_reply: float
    """Both together."""
    wall_ms: float


def rows(nodes: int = NODES, rounds: int = ROUNDS) -> Iterator[StoreWork]:
    """Measure SQLite, then PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="fedvault-store-") as folder:
        yield _measured("SQLite", f"sqlite:///{Path(folder) / 'fedvault.db'}", nodes, rounds, lambda: 0.0)
    with postgresql(durable=True) as server:
        engine = create_engine(f"{server.url}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("CREATE DATABASE work"))
        engine.dispose()
        yield _measured("PostgreSQL", f"{server.url}/work", nodes, rounds, lambda: _cpu_s(server.pid))


def _measured(database: str, url: str, nodes: int, rounds: int, database_cpu_s: Callable[[], float]) -> StoreWork:
    with closing(Store(url)) as store:
        for node in range(1, nodes + 1):
            store.invite(f"node-{node}", f"token-{node}", datetime.now(UTC) + timedelta(days=1))
            store.enrol(f"token-{node}", f"key-{node}", node, datetime.now(UTC))
        observer = StoreObserver(store, "r-1")
        for number in range(1, ROUNDS_BEFORE + 1):
            _round(observer, number, nodes)
        before = time.process_time(), database_cpu_s(), time.monotonic()
        for number in range(ROUNDS_BEFORE + 1, ROUNDS_BEFORE + rounds + 1):
            _round(observer, number, nodes)
        after = time.process_time(), database_cpu_s(), time.monotonic()
    own, its, wall = ((end - start) * 1000 / rounds for start, end in zip(before, after, strict=True))
    return StoreWork(database, nodes, own, its, (own + its) / nodes, wall)


def _round(observer: StoreObserver, number: int, nodes: int) -> None:
    current = Round(number, nodes, 600.0)
    current.begin(range(1, nodes + 1), 0.0)
    observer.asks(number, list(current.times))
    for node in current.times:
        observer.ledger_position(node)
    for node in current.times:
        current.admits(node)
        current.accept(node, 1.0)
        observer.save_ledger_position(node, LedgerPosition(number, f"{number:064x}", "b" * 64))
        observer.answered(number, current.answered, nodes, node=node, verdict="accepted")
    record = current.record("aggregated", bytes_up=4648, bytes_down=4648, seconds={"train": 1.0, "aggregate": 0.1})
    observer.finished(record, None)


def _cpu_s(pid: int) -> float:
    """Return what a process and its children have used, also those that have ended."""
    first = psutil.Process(pid)
    times = [first.cpu_times(), *(child.cpu_times() for child in first.children(recursive=True))]
    ended = times[0].children_user + times[0].children_system
    return float(ended + sum(its.user + its.system for its in times))
