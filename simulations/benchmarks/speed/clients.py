"""Measure clients per second: a hundred small sites train private LoRA on each engine.

Real text, few records each. The bare for-loop and Ray run the very ClientApp of the local engine, which keeps its model
and its sites' frozen activations in each worker: they differ in what lies around it. Ray then runs plain LoRA WITHOUT
PRIVACY, in a ClientApp that keeps its model and nothing else.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.adapted_model.model import initial_adapter
from shared.study.parsing import parse
from simulations.benchmarks.measure import Pairs, Ratio, ratio_of
from simulations.benchmarks.speed.engines import Work, beside, beside_ray, loop_seconds
from simulations.engines import worker
from simulations.engines.local import LocalEngine
from simulations.experiment.arms import Arm, write_arm
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario

PLAIN = "simulations.benchmarks.stock.plain_lora_app"
TABLE, CLIENTS, ARM = Path("data/vader/vader.csv"), 100, "federated"
TURNS, WARM_UP = 5, 3  # until nearly every worker has met every site


def scenario_of(clients: int) -> Scenario:
    """Declare a study of sentiment at so many sites, about fifteen records each."""
    declared = {
        "study": {"name": "benchmark"},
        "model": {"source": "bundled:minilm"},
        "task": {"kind": "sequence-classification", "labels": ["negative", "positive"], "max_length": 48},
        "adapter": {"layers": "last:1"},
        "privacy": {"sampling_rate": 0.25},
        # at the usual rates the noise of so small sites is longer than any update that a server lets in
        "training": {"local_steps": 4, "learning_rate": 0.1, "adapter_learning_rate": 0.1},
        "federation": {"smallest_declared_size": 1},
        "performance": {"threads": 1},
        "simulation": {
            "data": {"source": "dataset:vader", "partition": {"by": "iid", "sites": clients}, "used": 0.1},
        },
    }
    return parse(Scenario, declared, where="benchmark")


def rows() -> Iterator[Ratio]:
    """Measure beside the bare loop times the cores, and beside Flower's Ray engine with two ClientApps."""
    with tempfile.TemporaryDirectory() as folder:
        yield from compared(scenario_of(CLIENTS), TABLE, Path(folder), turns=TURNS)


def compared(scenario: Scenario, source: Path, folder: Path, *, turns: int) -> Iterator[Ratio]:
    """Measure clients per second of all comparisons, in a run folder of their own."""
    work = prepare_run(scenario, source, folder)
    local, one = LocalEngine(folder, threads=1), LocalEngine(folder, processes=1, threads=1)
    measure = f"{work.clients} clients train LoRA, private"
    try:
        local.map(worker.build_training_cache, [(ARM, index) for index in range(work.clients)])

        def loop() -> float:
            # a core's share of the work, if a loop on each of them did not slow the others
            (seconds,) = one.map(loop_seconds, [(work,)])
            return float(seconds) / local.processes

        pairs = beside(local, work, loop, turns=turns, warm_up=WARM_UP)
        peer = f"bare for-loop x {local.processes} cores"
        yield ratio_of(measure, peer, _rates(pairs, work), unit="clients/s", aim="at least 0.9")
        pairs = beside_ray(local, work, folder, turns=turns, warm_up=WARM_UP)
        yield ratio_of(measure, "Flower's Ray engine, the same ClientApp", _rates(pairs, work), unit="clients/s")
        pairs = beside_ray(local, work, folder, turns=turns, warm_up=WARM_UP, app=PLAIN)
        peer = "Flower's Ray engine, plain LoRA, its model kept"
        yield ratio_of(measure, peer, _rates(pairs, work), unit="clients/s", aim="at least 1.6")
    finally:
        local.close()
        one.close()


def prepare_run(scenario: Scenario, source: Path, folder: Path) -> Work:
    """Prepare sites and the arm that trains on them; return the work that they make."""
    prepared, study = prepare(scenario, source, folder / "prepared"), scenario.as_study()
    indices = tuple(site.index for site in prepared.sites)
    write_arm(Arm(ARM, ARM, study, indices, True, scenario.simulation.seed), folder)
    (folder / "cache").mkdir(mode=0o700)
    return Work("simulations.engines.worker", len(indices), initial_adapter(study), study.sha256, ARM)


def _rates(pairs: Pairs, work: Work) -> Pairs:
    return [(work.clients / ours, work.clients / theirs) for ours, theirs in pairs]
