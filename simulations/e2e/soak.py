"""A storm of kills over one long study: many light nodes, and a real vault whose ledger has the last word."""

import contextlib
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from server.run_store.store import Store
from server.settings import Home
from simulations.e2e.federation import Federation, Impatience, wait_until
from simulations.e2e.light_nodes import LightVault

PAUSES_S = (1.0, 6.0)
KILLED = (("server", "run-"), ("server", "superlink"), ("server", "gateway"), ("node", "vault"), ("node", "link"))
SETTLES_WITHIN_S = 180.0
LASTING = ("gateway", "superlink")
MOST_RESIDENT_MB = 600.0
DESCRIPTORS_OF_A_NODE, OTHER_DESCRIPTORS = 3, 200


@dataclass(frozen=True)
class Soaked:
    """Kills of a storm, and the rounds and updates that it left."""

    kills: int
    rounds: int
    """Finished while it blew, and in the calm afterwards."""
    accepted: int
    """Updates in those rounds."""


def storm(
    federation: Federation, run: str, real: str, lights: Sequence[LightVault], *, seconds: float, seed: int
) -> Soaked:
    """Kill one process after another with -9, then let everybody come back.

    Args:
        federation: with its server, `real` and the light nodes running.
        run: goes on all the while.
        real: a node with a vault of its own.
        lights: vaults of the light nodes.
        seconds: of the storm.
        seed: of who is killed, and when.

    Raises:
        Impatience: a round is missing, counted twice or never closed again, or a process grows.
    """
    drawn, kills, until = random.Random(seed), 0, time.monotonic() + seconds  # noqa: S311 - no secret
    while time.monotonic() < until:
        time.sleep(drawn.uniform(*PAUSES_S))
        owner, process = drawn.choice(KILLED)
        with contextlib.suppress(Impatience, ProcessLookupError):  # it is being started this very moment
            federation.signal(real if owner == "node" else owner, process, signal.SIGKILL)
            kills += 1
    number = _node_id(federation, real)
    before = len(federation.run(run)["history"])
    wait_until(
        lambda: any(_complete(record, number, lights) for record in federation.run(run)["history"][before:]),
        "a round with everybody",
        timeout_s=SETTLES_WITHIN_S,
    )
    history = federation.run(run)["history"]
    _check_rounds([record["round"] for record in history], lights)
    _check_size(federation, len(lights) + 1)
    return Soaked(kills, len(history), sum(len(record["accepted"]) for record in history))


def _node_id(federation: Federation, name: str) -> int:
    with Store(Home(federation.home).database()) as store:
        return next(number for number, known in store.names().items() if known == name)


def _complete(record: dict[str, list[int]], number: int, lights: Sequence[LightVault]) -> bool:
    return number in record["accepted"] and len(record["accepted"]) == len(lights) + 1


def _check_rounds(numbers: Sequence[int], lights: Sequence[LightVault]) -> None:
    if list(numbers) != list(range(1, len(numbers) + 1)):
        raise Impatience(f"rounds {list(numbers)}")
    for light in lights:
        if len(set(light.rounds)) != len(light.rounds):
            raise Impatience(f"a light node was asked for a round that it had left behind: {light.rounds}")


def _check_size(federation: Federation, nodes: int) -> None:
    for name in LASTING:
        process = psutil.Process(federation.pid("server", name))
        resident, descriptors = process.memory_info().rss / 2**20, process.num_fds()
        if resident > MOST_RESIDENT_MB or descriptors > DESCRIPTORS_OF_A_NODE * nodes + OTHER_DESCRIPTORS:
            raise Impatience(f"{name} holds {resident:.0f} MB and {descriptors} descriptors")
