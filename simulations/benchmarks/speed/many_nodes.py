"""Measure what many nodes cost a server: real processes, certificates and TLS; nodes that answer at once, with noise.

One process plays all links, each with a connection of its own. The server's processes are measured from outside.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil

from server.run_store.store import Store
from server.settings import Home
from simulations.e2e.federation import Federation, wait_until
from simulations.e2e.light_nodes import ROOM, all_connected, enrol, playing

SIZES, ROUNDS, IDLE_S, TIMEOUT_S = (4, 30, 100), 5, 20.0, 600.0
STUDY = """
[study]
name = "many nodes"
[model]
source = "bundled:minilm"
[task]
kind = "sequence-classification"
labels = ["negative", "positive"]
max_length = 48
[adapter]
layers = "last:1"
[privacy]
sampling_rate = 0.1
[training]
local_steps = 1
[federation]
rounds = {rounds}
quorum = {nodes}
smallest_declared_size = 200
"""


@dataclass(frozen=True)
class Cost:
    """Costs of a number of nodes to the server."""

    nodes: int
    round_s: float
    """Wall time of a round, median, with links and server on the same cores."""
    superlink_cpu_s: float
    """Of a node and round, mean."""
    gateway_cpu_s: float
    run_cpu_s: float
    idle_cores: float
    """Of SuperLink and gateway together, while no study runs."""
    resident_mb: float
    """Of SuperLink, gateway and run together, after the last round."""


def rows(sizes: Sequence[int] = SIZES) -> Iterator[Cost]:
    """Measure each number of nodes on a server of its own."""
    for nodes in sizes:
        with tempfile.TemporaryDirectory(prefix="fedvault-e2e-") as scratch:
            federation = Federation(Path(scratch))
            try:
                yield _cost(federation, nodes)
            finally:
                federation.stop()


def _cost(federation: Federation, nodes: int) -> Cost:
    federation.make_server(ROOM)
    members = enrol(Home(federation.home), federation.folder, nodes)
    federation.server("start", "--detach")
    wait_until(federation.ready, "the server runs")
    with playing(members):
        wait_until(lambda: all_connected(members), "every node is connected", timeout_s=TIMEOUT_S)
        time.sleep(5.0)  # what connecting left to do
        before = _cpu_s(federation, "superlink") + _cpu_s(federation, "gateway")
        time.sleep(IDLE_S)
        idle = (_cpu_s(federation, "superlink") + _cpu_s(federation, "gateway") - before) / IDLE_S
        study = federation.folder / "study.toml"
        study.write_text(STUDY.format(rounds=ROUNDS, nodes=nodes))
        run = federation.start_study(study)
        wait_until(lambda: _round(federation, run) >= 1, "the first round", timeout_s=TIMEOUT_S, poll_s=0.05)
        started = {name: _cpu_s(federation, name) for name in ("superlink", "gateway", f"run-{run}")}
        wait_until(lambda: _round(federation, run) >= ROUNDS - 1, "the rounds", timeout_s=TIMEOUT_S, poll_s=0.05)
        used = {name: _cpu_s(federation, name) - before for name, before in started.items()}
        resident = sum(_process(federation, name).memory_info().rss for name in started)
        wait_until(lambda: federation.run(run)["state"] == "finished", "the run is finished", timeout_s=TIMEOUT_S)
    superlink, gateway, driving = (seconds / (nodes * (ROUNDS - 2)) for seconds in used.values())
    return Cost(nodes, _round_s(federation, run), superlink, gateway, driving, idle, resident / 2**20)


def _round(federation: Federation, run: str) -> int:
    with Store(Home(federation.home).database()) as store:
        return store.run(run).round


def _round_s(federation: Federation, run: str) -> float:
    with Store(Home(federation.home).database()) as store:
        rounds = [event for event in store.events(run) if event.kind == "round"]
    ended = [datetime.fromisoformat(event.time).timestamp() for event in rounds]
    return statistics.median(after - before for before, after in pairwise(ended))


def _process(federation: Federation, name: str) -> psutil.Process:
    return psutil.Process(federation.pid("server", name))


def _cpu_s(federation: Federation, name: str) -> float:
    times = _process(federation, name).cpu_times()
    return float(times.user + times.system)
