"""The demo's accuracy over seeds: federated under epsilon beside every single site and beside no privacy."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from simulations.progress import SilentProgress
from simulations.result import Result
from simulations.run import Run
from simulations.scenario import data_path, load

SCENARIO = Path(__file__).parents[1] / "scenarios" / "vader.toml"
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Accuracy:
    """One arm over seeds."""

    arm: str
    mean: float
    """Over all held-out records, mean over seeds."""
    lowest: float
    highest: float
    worst_site: float
    """Accuracy of the worst site, mean over seeds."""


def table(folder: Path) -> list[Accuracy]:
    """Run the demo with several seeds, every site alone too; finished seeds are kept in the folder."""
    results = [_run(seed, folder / f"seed-{seed}") for seed in SEEDS]
    return [_over_seeds(arm, results) for arm in results[0].arms]


def _run(seed: int, folder: Path) -> Result:
    scenario = load(SCENARIO, [f"simulation.seed={seed}", "simulation.alone=every"])
    run = Run(scenario, data_path(scenario, SCENARIO), folder, SilentProgress())
    run.open(resume=True)
    return run.execute()


def _over_seeds(arm: str, results: list[Result]) -> Accuracy:
    found = [result.arms[arm].quality for result in results]
    accuracies = [quality.accuracy for quality in found]
    return Accuracy(
        arm=results[0].arms[arm].title,
        mean=statistics.mean(accuracies),
        lowest=min(accuracies),
        highest=max(accuracies),
        worst_site=statistics.mean(quality.worst_site.accuracy for quality in found),
    )
