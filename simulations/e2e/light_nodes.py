"""Many nodes in one process: real links, certificates and connections, and vaults that answer at once, with noise.

What many nodes cost a server, and whether it keeps them all, needs no training.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from flwr.app.message import message as flower_message

import client.link.fleet
from client.link.loop import Link
from client.link.membership import Membership, _made_key, _request, membership
from client.settings import Server
from server.certificate_authority import AUTHORITY, issue_node, public_pem, requested_key
from server.run_store.store import Store
from server.run_store.values import NO_NUMBER
from server.settings import Home
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    Vector,
    without_content,
    without_histogram,
)

NOISE = 1e-4
ROOM = "connections_per_address = 4096\nconnections_per_s = 1000.0\n"
"""For server.toml: all of them come from one address, at one moment."""


class LightVault:
    """Agrees to every study, and answers every round with noise; asked again, with the same."""

    def __init__(self) -> None:
        self._random = np.random.default_rng()
        self._latest: tuple[tuple[str, int], Vector] | None = None
        self.rounds: list[tuple[str, int]] = []
        """What it has answered, by run and round, in order; each once."""

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Agree."""
        return OfferReply(offer.study_run, Status.APPROVED)

    def leg(self, task: LegTask) -> LegReply:
        """Take part in no secure sum."""
        return without_content(task, Status.REFUSED_STUDY)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Count nothing."""
        return without_histogram(task, Status.REFUSED_STUDY)

    def train(self, task: TrainTask) -> TrainReply:
        """Answer at once."""
        asked = task.study_run, task.round
        if self._latest is None or self._latest[0] != asked:
            self._latest = asked, self._random.normal(0.0, NOISE, task.adapter.shape).astype(np.float32)
            self.rounds.append(asked)
        return TrainReply(
            task.study_sha256, task.study_run, task.round, task.adapter_sha256, Status.TRAINED, self._latest[1]
        )


class Identity(threading.local):
    """Flower's identity of a process, here of a thread."""

    task_id, run_id, node_id = 1, 1, 0


def enrol(home: Home, folder: Path, count: int) -> list[Membership]:
    """Enrol nodes as the gateway does, without its limit on how many may come in a minute.

    Args:
        home: the server's.
        folder: gets a folder for each node.
        count: how many.
    """
    now, members = datetime.now(UTC), []
    authority = (home.keys / f"{AUTHORITY}.crt").read_bytes()
    with Store(home.database()) as store:
        for number in range(count):
            name = f"light-{number:03d}"
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
def playing(members: Sequence[Membership]) -> Iterator[list[LightVault]]:
    """Play the links of all nodes in threads of this process; yields their vaults."""
    stop, vaults, before = threading.Event(), [LightVault() for _ in members], client.link.fleet.TaskIdentity  # type: ignore[attr-defined]
    _identify(Identity())

    def play(member: Membership, vault: LightVault) -> None:
        Link(
            lambda: member.connect(Server(), member.folder),
            vault,
            member.folder,
            server=member.server,
            node_id=0,
            stop=stop,
        ).run()

    threads = [threading.Thread(target=play, args=both, daemon=True) for both in zip(members, vaults, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield vaults
    finally:
        stop.set()
        for thread in threads:
            thread.join(60.0)
        _identify(before)


def all_connected(members: Sequence[Membership]) -> bool:
    """Return whether every link says that it is connected."""
    states = [member.folder / "state.json" for member in members]
    return all(state.exists() and json.loads(state.read_text())["connected"] for state in states)


def _identify(identity: object) -> None:
    for module in (flower_message, client.link.fleet):
        vars(module)["TaskIdentity"] = identity
