"""Measure what many nodes cost a server: real processes, certificates and TLS; nodes that answer at once, with noise.

One process plays all links, each with a connection of its own. The server's processes are measured from outside.
"""

import hashlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from flwr.app.message import message as flower_message

import client.link.fleet
from client.link.loop import Link
from client.link.membership import Membership, _made_key, _request, membership
from client.settings import Server
from server.certificate_authority import AUTHORITY, issue_node, public_pem, requested_key
from server.run_store.store import Store
from server.run_store.values import NO_NUMBER
from server.settings import Home
from shared.protocol.messages import OfferReply, Status, StudyOffer, TrainReply, TrainTask
from simulations.e2e.federation import Federation, wait_until

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
    """What so many nodes cost the server."""

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


class Identity(threading.local):
    """Flower's identity of a process, here of a thread: one process plays many nodes."""

    task_id, run_id, node_id = 1, 1, 0


class LightVault:
    """Agrees to every study and answers every round with a little noise."""

    def __init__(self) -> None:
        self._random = np.random.default_rng()

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Agree."""
        return OfferReply(offer.study_run, Status.APPROVED)

    def train(self, task: TrainTask) -> TrainReply:
        """Answer at once."""
        update = self._random.normal(0.0, 1e-4, task.adapter.shape).astype(np.float32)
        return TrainReply(task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, update)


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
    federation.make_server()
    members = _enrolled(Home(federation.home), federation.folder, nodes)
    federation.server("start", "--detach")
    wait_until(federation.ready, "the server runs")
    with _playing(members):
        wait_until(lambda: _connected(members), "every node is connected", timeout_s=TIMEOUT_S)
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


def _enrolled(home: Home, folder: Path, nodes: int) -> list[Membership]:
    """Enrol nodes as the gateway does, without its limit on how many may come in a minute."""
    now, members = datetime.now(UTC), []
    authority = (home.keys / f"{AUTHORITY}.crt").read_bytes()
    with Store(home.database()) as store:
        for number in range(nodes):
            name = f"node-{number:03d}"
            link = folder / name
            link.mkdir()
            csr = _request(_made_key(link / "node.key"), name).encode()
            token = hashlib.sha256(name.encode()).hexdigest()
            store.invite(name, token, now + timedelta(days=1))
            store.enrol(token, public_pem(requested_key(csr)), NO_NUMBER, now)
            (link / "node.crt").write_bytes(issue_node(home.keys, name, csr, now=now))
            (link / "authority.crt").write_bytes(authority)
            facts = {"name": name, "server": f"127.0.0.1:{home.settings().port}", "node_id": 0}
            (link / "membership.json").write_text(json.dumps(facts))
            members.append(membership(link))
    return members


@contextmanager
def _playing(members: Sequence[Membership]) -> Iterator[None]:
    """Play the links of all nodes in threads of this process."""
    identity, stop = Identity(), threading.Event()
    for module in (flower_message, client.link.fleet):
        vars(module)["TaskIdentity"] = identity

    def play(member: Membership) -> None:
        Link(
            lambda: member.connect(Server(), member.folder),
            LightVault(),
            member.folder,
            server=member.server,
            node_id=0,
            stop=stop,
        ).run()

    threads = [threading.Thread(target=play, args=(member,), daemon=True) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60.0)


def _connected(members: Sequence[Membership]) -> bool:
    states = [member.folder / "state.json" for member in members]
    return all(state.exists() and json.loads(state.read_text())["connected"] for state in states)


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
