"""Measure bytes per node and round, and what rounding costs: one scenario, the same seeds, three encodings.

Sampling and noise are the same in every encoding, so what differs between the accuracies of one seed is rounding alone.
"""

import math
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.protocol.update_encoding import WIRES, Wire
from simulations.experiment.catalogue import SCENARIOS
from simulations.experiment.scenario import data_path, load
from simulations.progress import SilentProgress
from simulations.results.result import Result
from simulations.run import Run

SCENARIO = SCENARIOS / "digits.toml"
SEEDS = range(1, 9)


@dataclass(frozen=True)
class Encoded:
    """Figures of one encoding over all seeds."""

    wire: str
    bytes_up: int
    """Payload of one reply: per node and round."""
    x_lora: float
    """How many times as much A and B of every layer would be, as float32."""
    x_model: float
    """How many times as much every weight would be, as float32."""
    metric: str
    """The task's main metric; the figures are of it."""
    mean: float
    """Over all held-out records, mean over seeds."""
    change: float
    """From float32 of the same seed, mean over seeds."""
    error: float
    """Standard error of that change."""


def rows() -> Iterator[Encoded]:
    """Run the scenario with every seed in every encoding; the study's own arm alone."""
    with tempfile.TemporaryDirectory(prefix="fedvault-wire-") as scratch:
        by_wire = {wire: [_run(wire, seed, Path(scratch) / f"{wire}-{seed}") for seed in SEEDS] for wire in WIRES}
    for wire, results in by_wire.items():
        sizes, values = results[0].bytes, [result.final.value for result in results]
        changes = [value - plain.final.value for value, plain in zip(values, by_wire["float32"], strict=True)]
        yield Encoded(
            wire=wire,
            bytes_up=sizes.up_per_node_round,
            x_lora=(sizes.full_lora_up or math.nan) / sizes.up_per_node_round,
            x_model=sizes.full_model_up / sizes.up_per_node_round,
            metric=results[0].final.metric,
            mean=statistics.mean(values),
            change=statistics.mean(changes),
            error=statistics.stdev(changes) / math.sqrt(len(changes)),
        )


def _run(wire: Wire, seed: int, folder: Path) -> Result:
    changes = [f"simulation.seed={seed}", 'simulation.arms=["federated"]', f"federation.wire={wire}"]
    scenario = load(SCENARIO, [*changes, "simulation.evaluate_every=1000"])
    run = Run(scenario, data_path(scenario, SCENARIO), folder, SilentProgress())
    run.open(resume=False)
    return run.execute()
