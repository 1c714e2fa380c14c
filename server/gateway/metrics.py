"""Prometheus metrics, read from the run store at every scrape: nothing about data, nothing that a restart loses."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.certificate_ends import CertificateEnd
from server.rounds.round import Outcome, Reason
from server.run_store.store import Store
from server.run_store.values import RunState
from shared.protocol.messages import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_REFUSALS = {Status.TRAINED, Status.EVALUATED, Status.APPROVED, Status.AWAITING_APPROVAL, Status.REJECTED}
"""An update, or an answer to another question."""
ANSWERS: tuple[tuple[str, str], ...] = (
    ("accepted", ""),
    ("missing", ""),
    *(("rejected", str(reason)) for reason in Reason),
    *(("refused", status.name.lower()) for status in Status if status not in NO_REFUSALS),
)
"""Verdict and reason of what a node may answer to a round."""


@dataclass
class Totals:
    """Sums over all finished rounds; whatever is known beforehand begins at 0.

    Guarantee: the first event of a known kind is an increase, which Prometheus sees: its series was there before.
    """

    asks: int = 0
    outcomes: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(get_args(Outcome), 0)))
    verdicts: Counter[tuple[str, str]] = field(default_factory=lambda: Counter(dict.fromkeys(ANSWERS, 0)))
    bytes_moved: Counter[str] = field(default_factory=lambda: Counter(down=0, up=0))
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add one round."""
        self.asks += record.get("asks", 1)
        self.outcomes[record["outcome"]] += 1
        self.verdicts.update(_verdicts(record))
        self.bytes_moved["down"] += record["bytes_down_per_node"] * _questions(record)
        self.bytes_moved["up"] += record["bytes_up_per_node"] * len(record["accepted"])
        self.seconds.update(record["seconds"])


class RoundTotals:
    """Sums up the store's rounds and reads each of them once, however often it is asked."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._totals, self._summed = Totals(), defaultdict[str, set[int]](set)

    def updated(self) -> Totals:
        """Return the sums, with the rounds that are new."""
        with self._lock:
            for run, count in self._store.count_rounds().items():
                summed = self._summed[run]
                # by number: a round that only a checkpoint knew is recorded after later ones
                for number in self._store.round_numbers(run) - summed if count != len(summed) else ():
                    self._totals.add(self._store.round_record(run, number))
                    summed.add(number)
            return self._totals


class StoreCollector(Collector):
    """Turns the store's contents into metrics.

    Args:
        store: runs, rounds and nodes.
        present: returns Flower's numbers of the nodes that are present now; None if that is not known.
        ends: returns when each certificate ends.
    """

    def __init__(
        self, store: Store, present: Callable[[], set[int] | None], ends: Callable[[], Sequence[CertificateEnd]]
    ) -> None:
        self._store, self._present, self._ends = store, present, ends
        self._totals = RoundTotals(store)

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        nodes, totals = self._store.nodes(), self._totals.updated()
        runs = dict.fromkeys(get_args(RunState), 0) | self._store.count_runs()
        yield _gauge("fedvault_runs", "Runs by state", "state", runs)
        yield _gauge("fedvault_nodes", "Nodes by status", "status", Counter(node.status for node in nodes))
        present = self._present()
        if present is not None:
            by_name = {node.name: float(node.node_id in present) for node in nodes if node.status == "enrolled"}
            yield _gauge("fedvault_node_present", "Whether a node is connected", "node", by_name)
        yield CounterMetricFamily("fedvault_asks", "Deadlines that rounds took, one each at the least", totals.asks)
        yield _counter("fedvault_rounds", "Rounds by outcome", "outcome", totals.outcomes)
        replies = CounterMetricFamily("fedvault_replies", "Nodes' answers to rounds", labels=["verdict", "reason"])
        for labels, count in totals.verdicts.items():
            replies.add_metric(labels, count)
        yield replies
        yield _counter("fedvault_bytes", "Adapter bytes by direction", "direction", totals.bytes_moved)
        yield _counter("fedvault_round_seconds", "Seconds by phase of a round", "phase", totals.seconds)
        yield _evaluated(self._store.evaluations.latest())
        yield _ends(self._ends())


def _questions(record: Mapping[str, Any]) -> int:
    """Return how many tasks a round has sent; an older record tells only whom it asked."""
    return record.get("questions") or len(record["asked"])


def _evaluated(latest: tuple[str, Mapping[str, Any]] | None) -> Metric:
    """Return what the sites' noisy counts say of the newest run, with the ends of the 95 % intervals."""
    labels = ["run", "round", "of", "measure", "figure"]
    family = GaugeMetricFamily("fedvault_evaluated", "Last private evaluation, all sites and worst", labels=labels)
    run, evaluated = latest or ("", {"estimates": ()})
    for one in evaluated["estimates"]:
        if one["scope"] in ("all sites", "worst site") and one["value"] is not None:
            for figure in ("value", "low", "high"):
                place = [run, str(evaluated["number"]), one["scope"], one["measure"], figure]
                family.add_metric(place, one[figure])
    return family


def build_metrics_app(
    store: Store,
    present: Callable[[], set[int] | None] = lambda: None,
    ends: Callable[[], Sequence[CertificateEnd]] = lambda: (),
) -> Starlette:
    """Return an application that answers `GET /metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(store, present, ends))

    def scrape(_request: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    return Starlette(routes=[Route("/metrics", scrape)])


def _verdicts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for verdict in ("accepted", "missing"):
        yield from ((verdict, "") for _ in record[verdict])
    for verdict, key in (("refused", "status"), ("rejected", "reason")):
        entries: list[dict[str, str]] = record[verdict]
        yield from ((verdict, entry[key]) for entry in entries)


def _ends(ends: Sequence[CertificateEnd]) -> Metric:
    text = "When a certificate ends, in seconds since 1970"
    gauge = GaugeMetricFamily("fedvault_certificate_ends_timestamp_seconds", text, labels=["kind", "node"])
    for end in ends:
        gauge.add_metric([end.kind, end.name], end.ends.timestamp())
    return gauge


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        gauge.add_metric([value], count)
    return gauge


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    counter = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        counter.add_metric([value], count)
    return counter
