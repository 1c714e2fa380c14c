"""Gather what the page shows: the run store at every look, ports and Flower every few seconds, a run once a round."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from server.dashboard.nodes import NodeLine, node_lines
from server.dashboard.under_way import UnderWay, minutes_left, under_way
from server.flower.control import FlowerNode
from server.operator.facts import flower_nodes, status_facts
from server.operator.status_text import OVER, waits_for
from server.private_evaluation.results import RunEvaluations, evaluations_of
from server.rounds.attendance import sits_out_until
from server.run_store.store import Store
from server.run_store.values import Run
from server.settings import Home
from shared.errors import FedVaultError
from shared.evidence.facts import Report

FACTS_S, SEEN_S = 5.0, 3.0
"""How old a look at the server's ports and at Flower's nodes may be."""
RUNS_KNOWN = 16
Value = TypeVar("Value")


class Cached(Generic[Value]):
    """A value that is made anew once it is too old; of many who ask at once, one makes it."""

    def __init__(self, make: Callable[[], Value], most_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._make, self._most_s, self._now = make, most_s, now
        self._lock, self._value, self._made = threading.Lock(), list[Value](), 0.0

    def get(self) -> Value:
        """Return the value, made anew if need be."""
        with self._lock:
            if not self._value or self._now() - self._made > self._most_s:
                self._value[:], self._made = [self._make()], self._now()
            return self._value[0]


class RunHistory(NamedTuple):
    """Sums and figures over a run's finished rounds."""

    report: Report | None
    problem: str
    """Why there is no report; empty otherwise."""
    points: Sequence[tuple[int, float]]
    """Main metric after each round that was measured."""
    metric: str
    last: Sequence[Mapping[str, Any]]
    """Records of the last rounds."""
    sits_out: Mapping[str, int]
    """Nodes that kept missing rounds, each with the last round that it sits out."""
    evaluations: RunEvaluations | None
    """Private ones; None where there are none."""


class Live(NamedTuple):
    """The run in progress and the queue, as they stand now."""

    run: Run | None
    round: UnderWay | None
    waits: str
    """What the run waits for; empty while a round is asked."""
    minutes: float | None
    quality: tuple[str, float] | None
    queue: Sequence[tuple[Run, str]]
    """Other runs that are wanted, each with what it waits for."""
    nodes: Sequence[NodeLine]


class Watch:
    """Looks at one server.

    Args:
        home: the server's folder.
        store: its run store, open.
        seen: returns the nodes as Flower sees them.
        facts: returns what runs and answers.
    """

    def __init__(
        self,
        home: Home,
        store: Store,
        *,
        seen: Callable[[], list[FlowerNode] | None] | None = None,
        facts: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.home, self.store = home, store
        self._seen = Cached(seen or (lambda: flower_nodes(home)), SEEN_S)
        self._facts = Cached(facts or (lambda: status_facts(home)), FACTS_S)
        self._known = dict[str, tuple[tuple[Any, ...], RunHistory]]()
        self._lock = threading.Lock()

    def facts(self) -> dict[str, Any]:
        """Return what runs and answers, and when certificates end."""
        return self._facts.get()

    def free_bytes(self) -> int:
        """Return the free space where the server keeps its folder."""
        return shutil.disk_usage(self.home.folder).free

    def nodes(self) -> list[NodeLine]:
        """Return a line for every node."""
        run = self.store.next_wanted()
        sits_out = {} if run is None or run.round == 0 else self.history(run).sits_out
        return node_lines(self.store.nodes(), self._seen.get(), sits_out)

    def live(self) -> Live:
        """Return the run in progress and the queue."""
        run, names = self.store.next_wanted(), self.store.names()
        if run is None:
            return Live(None, None, "", None, None, [], self.nodes())
        asked = under_way(self.store.events_since_round(run.id), run.round, names) if run.state == "running" else None
        history = self.history(run)
        quality = (history.metric, history.points[-1][1]) if history.points else None
        began = "" if asked is None else asked.began
        behind = [name for name, _state in self.store.open_runs() if name != run.id]
        queue = [(other, waits_for(other, self.store)) for other in map(self.store.run, behind[:RUNS_KNOWN])]
        waits = "" if asked is not None else self._waits(run)
        minutes = minutes_left(run, history.last, began, datetime.now(UTC))
        return Live(run, asked, waits, minutes, quality, queue, self.nodes())

    def history(self, run: Run) -> RunHistory:
        """Return what a run's finished rounds come to; worked out once a round, or evaluation."""
        key = (run.round, self.store.evaluations.count(run.id), run.state, run.updated if run.state in OVER else "")
        with self._lock:
            known = self._known.get(run.id)
            if known is None or known[0] != key:
                self._known.pop(run.id, None)
                self._known[run.id] = known = (key, self._history(run))
                while len(self._known) > RUNS_KNOWN:
                    self._known.pop(next(iter(self._known)))
        return known[1]

    def _waits(self, run: Run) -> str:
        return waits_for(run, self.store) if run.round == 0 else f"{run.id}: {run.reason or 'the next round begins'}."

    def _history(self, run: Run) -> RunHistory:
        # seconds of imports, which a page without a run does not need
        from server.export.run_report import run_report
        from shared.tasks.registry import task_kind

        rounds, names = self.store.rounds(run.id), self.store.names()
        records = [record for record, _ in rounds]
        report, problem, metric, evaluations = None, "", "", None
        try:
            kind = task_kind(run.study.task)
            metric = kind.metric
            report = run_report(self.store, run, self.home.runs / run.id / "adapter")
            evaluations = evaluations_of(self.store, run)
        except FedVaultError as error:
            problem = str(error)
        points = [(record["round"], float(one[metric])) for record, one in rounds if one and metric in one]
        finished = records[-1]["round"] if records else 0
        sits_out = {
            names.get(node, str(node)): until for node, until in sits_out_until(records).items() if finished < until
        }
        counted = evaluations if evaluations is not None and evaluations.all else None
        return RunHistory(report, problem, points, metric.replace("_", " "), records[-16:], sits_out, counted)
