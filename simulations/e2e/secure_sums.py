"""Studies whose server can open nothing but sums, over real processes: a node is killed in each leg of their rounds."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from server.run_store.store import Store
from server.secure_sum.deployment import FOLDER
from server.secure_sum.files import SumFiles
from server.settings import Home
from shared.secure_sum.context import PURPOSES, Purpose
from shared.secure_sum.messages import MaskedVector
from simulations.e2e.federation import Federation, Impatience, wait_until

ROUNDS, EVALUATED = 8, 3
STUDY = """
[study]
name = "secure-{mode}"
[model]
source = "bundled:minilm"
[task]
kind = "sequence-classification"
labels = ["negative", "positive"]
max_length = 16
[adapter]
layers = "last:1"
[training]
local_steps = {steps}
learning_rate = 1.0
adapter_learning_rate = 0.5
[federation]
secure_sum = "{mode}"
rounds = {rounds}
quorum = 3
deadline_s = 90
smallest_declared_size = 30
typical_size = 70
[evaluation]
epsilon = 8.0
rounds = [{evaluated}]
"""
STEPS = {"masked": 4, "shared": 1}
Recorded = dict[tuple[Purpose, int, int], bytes]
"""Masked vectors, by what they are of, the number and the place."""
LEGS = ("asked", "fixed", "signed")
"""Events of the run store after which a node is killed: it trains, it is asked to sign, it is asked to open."""
WIDEST_UNIFORM = 0.01
"""Largest relative distance of a masked vector's mean square from that of numbers uniform modulo 2^64."""


def secure_study(federation: Federation, nodes: Sequence[str], mode: str) -> str:
    """Run a study with a secure sum to its end, with a node killed in each leg; return how it went.

    Raises:
        Impatience: it did not end, a round was not opened, a node answered twice, or a reply was no uniform bytes.
    """
    path = federation.folder / f"{mode}.toml"
    path.write_text(STUDY.format(mode=mode, steps=STEPS[mode], rounds=ROUNDS, evaluated=EVALUATED))
    run = federation.start_study(path)
    for name in nodes:
        federation.shown(name, run)
        federation.node(name, "peers", run, "--pin-all")
    federation.approve(list(nodes), run)
    recorded: Recorded = {}

    def is_so(look: Callable[[], bool]) -> bool:
        _record(federation, run, recorded)
        return look()

    _kill_in_each_leg(federation, nodes, run, is_so)
    wait_until(lambda: is_so(lambda: federation.run(run)["state"] == "finished"), f"{run} is finished", timeout_s=600)
    outcomes = Counter(record["outcome"] for record in federation.run(run)["history"])
    if outcomes["aggregated"] < ROUNDS - 1:
        raise Impatience(f"rounds {dict(outcomes)}")
    for name in nodes:
        _check_ledger(federation, name, run)
    _check_uniform(recorded)
    opened = [event.body["nodes"] for event in _events(federation, run) if event.kind == "opened"]
    counted = _check_evaluations(federation, run, mode)
    return (
        f"{len(opened)} sums of {min(opened)} to {max(opened)} nodes opened; {len(recorded)} replies alone are "
        f"uniform; {counted}"
    )


def _kill_in_each_leg(
    federation: Federation, nodes: Sequence[str], run: str, is_so: Callable[[Callable[[], bool]], bool]
) -> None:
    """Kill another node at each leg of a round, vault and link; both are back by themselves."""

    def count(kind: str) -> int:
        return sum(event.kind == kind for event in _events(federation, run))

    for node, leg in zip(nodes, LEGS, strict=False):
        before = count(leg)
        wait_until(lambda: is_so(lambda: count(leg) > before), f"event {leg} of {run}", poll_s=0.02)  # noqa: B023
        rounds = count("round")
        for process in ("vault", "link"):
            federation.signal(node, process)
        wait_until(lambda: is_so(lambda: count("round") > rounds), f"a round after a kill at {leg}")  # noqa: B023


def _check_evaluations(federation: Federation, run: str, mode: str) -> str:
    """Return what the evaluations came to, of which only sums may have been opened."""
    outcomes = []
    with Store(Home(federation.home).database()) as store:
        evaluations = [*store.evaluations.of_run(run).values()]
    for evaluated in evaluations:
        summed, units = evaluated["one_sum"], [one for one in evaluated["estimates"] if one["measure"] == "units"]
        if summed["noise"] != mode or any(one["scope"] in ("site", "worst site") for one in evaluated["estimates"]):
            raise Impatience(f"an evaluation of single sites: {evaluated}")
        if summed["sigma"] is None:
            raise Impatience(f"evaluation {evaluated['number']}: {summed['lost']}")
        outcomes.append(
            f"{len(evaluated['sites'])} sites' {units[0]['value']:.0f} held-out units ± {summed['sigma']:.2f} a count"
        )
    if [one["number"] for one in evaluations] != [EVALUATED, ROUNDS]:
        raise Impatience(f"evaluations {evaluations}")
    return f"counted in sums alone: {', '.join(outcomes)}"


def _record(federation: Federation, run: str, recorded: Recorded) -> None:
    """Keep the masked vectors that the gateway let through, which the server has on its disk for a round."""
    files = SumFiles(Home(federation.home).runs / run / FOLDER)
    places = range(1, len(federation.nodes) + 1)
    for purpose, number, place in itertools.product(PURPOSES, range(1, ROUNDS + 1), places):
        message = files.vector(number, place, purpose)
        if message is not None:
            recorded[purpose, number, place] = message


def _check_ledger(federation: Federation, name: str, run: str) -> None:
    path = Path(federation.folder) / f"{name}.{run}.rows.jsonl"
    federation.node(name, "ledger", "--export", str(path))
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if row.get("run") == run]
    single = ("roster", "reserve", "survivors", "evaluation")
    of = [
        (row["kind"], row.get("round", row.get("number")), row.get("purpose")) for row in rows if row["kind"] in single
    ]
    once = Counter(of)
    if not once or max(once.values()) > 1:
        raise Impatience(f"{name}: {once}")


def _check_uniform(recorded: Recorded) -> None:
    """Compare each recorded vector's mean square with a uniform one's: an update, or noise alone, has nearly none."""
    if not recorded:
        raise Impatience("no masked vector was recorded")
    for place, message in recorded.items():
        values = MaskedVector.from_bytes(message).values.view(np.int64).astype(np.float64) / 2.0**63
        distance = abs(3.0 * float(np.mean(values**2)) - 1.0) if len(values) else math.inf
        if not distance <= WIDEST_UNIFORM + 6.0 / math.sqrt(max(1, len(values))):
            raise Impatience(f"the vector {place} is not uniform: {distance:.3f}")


def _events(federation: Federation, run: str) -> list[Any]:
    with Store(Home(federation.home).database()) as store:
        return store.events(run)
