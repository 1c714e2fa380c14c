"""Bytes per node and round in each encoding, and what rounding costs: one scenario, the same seeds, three encodings.

Sampling and noise are the same in every encoding, so what differs between the accuracies of one seed is rounding alone.
"""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.wire import WIRES, Wire
from simulations.progress import SilentProgress
from simulations.result import Result
from simulations.run import Run
from simulations.scenario import data_path, load

SCENARIO = Path(__file__).parents[1] / "scenarios" / "digits.toml"
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Encoded:
    """One encoding over seeds."""

    wire: str
    bytes_up: int
    """Payload of one reply: per node and round."""
    full_lora: float
    """What sending A and B of every layer as float32 would take, as a multiple."""
    full_model: float
    """What sending every weight as float32 would take, as a multiple."""
    metric: str
    """The task's main metric; the figures are of it."""
    mean: float
    """Over all held-out records, mean over seeds."""
    lowest: float
    highest: float
    beside_float32: float
    """Mean difference to float32 of the same seed."""


def rows() -> Iterator[Encoded]:
    """Run the scenario with every seed in every encoding; the study's own arm alone."""
    with tempfile.TemporaryDirectory(prefix="fedvault-wire-") as scratch:
        found = {wire: [_run(wire, seed, Path(scratch) / f"{wire}-{seed}") for seed in SEEDS] for wire in WIRES}
    for wire, results in found.items():
        sizes, values = results[0].bytes, [result.final.value for result in results]
        plain = [result.final.value for result in found["float32"]]
        yield Encoded(
            wire=wire,
            bytes_up=sizes.up_per_node_round,
            full_lora=sizes.full_lora_up / sizes.up_per_node_round,
            full_model=sizes.full_model_up / sizes.up_per_node_round,
            metric=results[0].final.metric,
            mean=statistics.mean(values),
            lowest=min(values),
            highest=max(values),
            beside_float32=statistics.mean(value - other for value, other in zip(values, plain, strict=True)),
        )


def _run(wire: Wire, seed: int, folder: Path) -> Result:
    changes = [f"simulation.seed={seed}", 'simulation.arms=["federated"]', f"federation.wire={wire}"]
    scenario = load(SCENARIO, [*changes, "simulation.evaluate_every=1000"])
    run = Run(scenario, data_path(scenario, SCENARIO), folder, SilentProgress())
    run.open(resume=False)
    return run.execute()
