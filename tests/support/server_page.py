"""A federation whose run store was written as the run engine writes it, and its page; no process of it runs."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import server.export.run_report  # noqa: F401 - the page loads it at its first look at a run, which takes seconds
from server.certificate_authority import create, issue_server
from server.dashboard.site import ServerSite, server_pages
from server.dashboard.watch import Watch
from server.flower.control import FlowerNode
from server.operator.facts import status_facts
from server.rounds.round import RoundRecord
from server.run_process import StoreObserver
from server.run_store.store import Store
from server.settings import Home
from shared.study.declaration import Study

NAMES = ("st-mary", "north-clinic", "lakeside", "county-lab", "riverside", "old-town")


class ServerInPieces:
    """A server's folder and run store, driven by hand.

    Args:
        folder: a new one.
        names: of enrolled nodes; the last one is away.
    """

    def __init__(self, folder: Path, names: Sequence[str] = NAMES) -> None:
        self.home = Home(folder)
        create(self.home.keys, "FedVault federation")
        issue_server(self.home.keys, ["fl.example.org"])
        self.home.config.write_text('hosts = ["fl.example.org"]\nport = 1\nsuperlink_port = 2\n')
        self.store, self.numbers = Store(self.home.database()), dict[str, int]()
        now = datetime.now(UTC)
        for number, name in enumerate(names, start=11):
            self.store.invite(name, f"hash-{name}", now + timedelta(days=7))
            self.store.enrol(f"hash-{name}", f"key-{name}", number, now)
            self.numbers[name] = number
        self.away = set(names[-1:])

    def seen(self) -> list[FlowerNode]:
        """Return the nodes as Flower would."""
        yesterday = time.time() - 86_400
        return [
            FlowerNode(number, "offline" if name in self.away else "online", "", yesterday)
            for name, number in self.numbers.items()
        ]

    def begin(self, study: Study) -> StoreObserver:
        """Queue a run, and let its process begin."""
        self.run = self.store.create_run(study).id
        self.store.record_event("started", {"after_exit": None}, run=self.run)
        self.store.set_state(self.run, "running")
        self.observer = StoreObserver(self.store, self.run)
        return self.observer

    def finish(self, number: int, evaluation: Mapping[str, Any] | None = None, **changes: Any) -> None:
        """Let a round come to its end."""
        asked = sorted(set(self.numbers.values()))
        late = changes.pop("missing", [])
        rejected, refused = changes.pop("rejected", []), changes.pop("refused", [])
        out = {*late, *(entry["node"] for entry in (*rejected, *refused))}
        accepted = [node for node in asked if node not in out]
        record = RoundRecord(
            number, "aggregated", asked, accepted, rejected, refused, late, 24_576, 24_576, {"train": 41.0}, **changes
        )
        self.observer.finished(record, None if evaluation is None else dict(evaluation))

    def site(self) -> ServerSite:
        """Return the page."""
        running = lambda: status_facts(self.home) | {"state": "runs"}  # noqa: E731
        return ServerSite(Watch(self.home, self.store, seen=self.seen, facts=running), server_pages("fl.example.org"))


def under_way(server: ServerInPieces, study: Study, rounds: int) -> None:
    """Let a run finish some rounds, with what goes wrong in real ones, and ask for the next."""
    numbers = list(server.numbers.values())
    observer = server.begin(study)
    observer.present({"approved": numbers[:-1]})
    for number in range(1, rounds + 1):
        observer.asks(number, numbers)
        wrong: dict[str, Any] = {"missing": [numbers[-1]]} if number >= rounds - 1 else {}
        if number == 3:
            wrong["rejected"] = [{"node": numbers[2], "reason": "norm"}]
        if number == 4:
            wrong["refused"] = [{"node": numbers[1], "status": "refused_hours"}]
        server.finish(number, {"accuracy": 0.89 - 0.37 / (number + 0.4), "records": 412}, **wrong)
    observer.asks(rounds + 1, numbers[:-1])
    for answered, (node, verdict) in enumerate(
        [(numbers[0], "accepted"), (numbers[3], "accepted"), (numbers[1], "refused_hours"), (numbers[2], "norm")]
    ):
        observer.answered(rounds + 1, answered + 1, len(numbers) - 1, node=node, verdict=verdict)
