"""The demo's main metric over seeds: federated under epsilon beside every single site and beside no privacy."""

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
class OverSeeds:
    """One arm over seeds."""

    arm: str
    metric: str
    """The task's main metric; the figures are of it."""
    mean: float
    """Over all held-out records, mean over seeds."""
    lowest: float
    highest: float
    worst_site: float
    """Of the worst site, mean over seeds."""


def table(folder: Path) -> list[OverSeeds]:
    """Run the demo with several seeds, every site alone too; finished seeds are kept in the folder."""
    results = [_run(seed, folder / f"seed-{seed}") for seed in SEEDS]
    return [_over_seeds(arm, results) for arm in results[0].arms]


def _run(seed: int, folder: Path) -> Result:
    scenario = load(SCENARIO, [f"simulation.seed={seed}", "simulation.alone=every"])
    run = Run(scenario, data_path(scenario, SCENARIO), folder, SilentProgress())
    run.open(resume=True)
    return run.execute()


def _over_seeds(arm: str, results: list[Result]) -> OverSeeds:
    found = [result.arms[arm].quality for result in results]
    values = [quality.value for quality in found]
    return OverSeeds(
        arm=results[0].arms[arm].title,
        metric=found[0].metric,
        mean=statistics.mean(values),
        lowest=min(values),
        highest=max(values),
        worst_site=statistics.mean(quality.worst_site.value for quality in found),
    )
