"""Measure CPU and bytes of a secure sum's legs, by the session alone, beside one round of Flower's own SecAgg+.

One process, no transport: a node's three answers, and all that the server does with them. Flower makes and exchanges
keys in each round; ours, which a run makes once, are made anew in each turn here, so that both pay for them. Nobody is
missing, every node deals to every other, and both need the same number of shares.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from shared.secure_sum.context import RoundContext
from shared.secure_sum.entries import Entry, sign_entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.masks import Vector
from shared.secure_sum.node import Member, mask_vector, open_sum, sign_survivors
from shared.secure_sum.roster import Numbers, Roster
from shared.secure_sum.session import Session
from shared.secure_sum.thresholds import Thresholds
from simulations.benchmarks.measure import alternating
from simulations.benchmarks.stock import secaggplus
from simulations.benchmarks.stock.secaggplus import Costs

LENGTH, TURNS = 40_000, {4: 5, 10: 5, 30: 3, 100: 1}
"""Numbers of a vector, and turns by the number of nodes."""
RUN, STUDY = "benchmark", "0" * 64
Done = TypeVar("Done")


@dataclass(frozen=True)
class SumCosts:
    """Costs of one round with so many nodes: medians over turns, ours and SecAgg+'s."""

    nodes: int
    node_ms: float
    """CPU of a node, keys included."""
    secaggplus_node_ms: float
    ratio: float
    """Median of ours by theirs in neighbouring turns."""
    server_ms: float
    secaggplus_server_ms: float
    sent_kib: float
    """A node's, the masked vector of 8 bytes a number included."""
    secaggplus_sent_kib: float
    received_kib: float
    secaggplus_received_kib: float
    turns: int


def rows(length: int = LENGTH, turns: dict[int, int] = TURNS) -> Iterator[SumCosts]:
    """Measure every number of nodes."""
    for nodes, count in turns.items():
        ours, theirs = list[Costs](), list[Costs]()
        thresholds = Thresholds.by_default(nodes)
        values = np.random.default_rng(nodes).integers(-(2**20), 2**20, (nodes, length))

        def own(ours: list[Costs] = ours, thresholds: Thresholds = thresholds, values: Vector = values) -> float:
            ours.append(measured(thresholds, values))
            return ours[-1].node_s

        def other(theirs: list[Costs] = theirs, t: int = thresholds.threshold, values: Vector = values) -> float:
            vectors = [row / 2**20 for row in values]
            costs, opened = secaggplus.measured(len(values), t, vectors)
            if not np.allclose(opened, np.mean(vectors, axis=0), atol=1e-4):
                raise RuntimeError("Expected SecAgg+ to open the mean, got other numbers.")
            theirs.append(costs)
            return costs.node_s

        pairs = alternating(own, other, count)
        yield SumCosts(
            nodes=nodes,
            node_ms=1000 * _median(ours, "node_s"),
            secaggplus_node_ms=1000 * _median(theirs, "node_s"),
            ratio=statistics.median(mine / other for mine, other in pairs),
            server_ms=1000 * _median(ours, "server_s"),
            secaggplus_server_ms=1000 * _median(theirs, "server_s"),
            sent_kib=_median(ours, "sent_bytes") / 1024,
            secaggplus_sent_kib=_median(theirs, "sent_bytes") / 1024,
            received_kib=_median(ours, "received_bytes") / 1024,
            secaggplus_received_kib=_median(theirs, "received_bytes") / 1024,
            turns=count,
        )


def measured(thresholds: Thresholds, values: Vector) -> Costs:
    """Return the costs of one round in which every node sends one row of `values`."""
    nodes, server, sent, received = _Clock(), _Clock(), 0, 0
    names = [f"node-{number:03}" for number in range(thresholds.nodes)]
    keys = {name: nodes.timed(RunKeys.generate) for name in names}
    entries = [_entry(name, keys[name]) for name in names]
    roster = Roster.of(RUN, STUDY, Numbers("shared", thresholds), entries)
    members = {name: Member(name, keys[name], roster) for name in names}
    context = RoundContext(RUN, STUDY, 1, "1" * 64, roster.sha256, "training")
    session = Session(roster, context, values.shape[1])
    masked = {}
    for name, value in zip(names, values, strict=True):
        masked[name] = nodes.timed(lambda: mask_vector(members[name], context, value, None))  # noqa: B023
        server.timed(lambda: session.add_masked(name, masked[name].message))  # noqa: B023
        sent += len(masked[name].message)
    server.timed(session.fix)
    signed = {}
    for name in names:
        question = server.timed(session.survivors_question)
        row = nodes.timed(lambda: sign_survivors(members[name], context, question, masked[name], None))  # noqa: B023
        signed[name], reply = row
        server.timed(lambda: session.add_signature(name, reply))  # noqa: B023
        sent, received = sent + len(reply), received + len(question)
    for name in names:
        question = server.timed(lambda: session.opening_question(name))  # noqa: B023
        reply = nodes.timed(lambda: open_sum(members[name], context, question, masked[name], signed[name]))  # noqa: B023
        server.timed(lambda: session.add_opening(name, reply))  # noqa: B023
        sent, received = sent + len(reply), received + len(question)
    server.timed(session.open)
    if session.total is None or not np.array_equal(session.total, values.sum(axis=0)):
        raise RuntimeError("Expected the session to open the sum, got other numbers.")
    received += len(names) * len(roster.to_bytes())
    count = len(names)
    return Costs(nodes.seconds / count, server.seconds, sent / count, received / count)


class _Clock:
    """Adds up the CPU seconds of calls."""

    seconds = 0.0

    def timed(self, work: Callable[[], Done]) -> Done:
        """Call and count."""
        started = time.process_time()
        done = work()
        self.seconds += time.process_time() - started
        return done


def _entry(name: str, keys: RunKeys) -> Entry:
    return sign_entry(RUN, STUDY, name, keys.public, ec.generate_private_key(ec.SECP384R1()))


def _median(costs: list[Costs], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in costs))
