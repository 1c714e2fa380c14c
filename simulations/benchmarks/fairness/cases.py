"""The sets on which fairness is measured, and the scenario of each run."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from shared.errors import SettingsError
from simulations.experiment.scenario import Scenario, load
from simulations.forecast import plan_file

FOLDER = Path(__file__).parent
SETS = ("adult", "schools", "randhie", "compas")
EPSILONS = (0.5, 1.0, 3.0, 8.0)
SPLIT_SEED = 1
REFERENCE_FACTOR = 3.0
"""Of training without privacy; EXPERIMENTS.md, `References without privacy`."""


class Suggested(NamedTuple):
    """Settings that a plan suggests at an epsilon."""

    changes: list[str]
    rate: float


@dataclass(frozen=True)
class Case:
    """One run: a set, an epsilon, a seed."""

    name: str
    epsilon: float
    seed: int

    @property
    def path(self) -> Path:
        """Return the scenario's file."""
        return FOLDER / f"{self.name}.toml"

    def folder(self, root: Path) -> Path:
        """Return the folder of the run."""
        return root / self.name / f"seed-{self.seed}" / f"epsilon-{self.epsilon:g}"

    def scenario(self) -> Scenario:
        """Load the scenario, with the typical size and the learning rate that the planner suggests.

        Held-out people are the same under every seed, so that what differs between runs is batches and noise. Training
        without privacy has one rate whatever epsilon is: three times what the planner suggests at the largest.

        Raises:
            SettingsError: the data set was not fetched.
        """
        own, largest = suggested(self.name, self.epsilon), suggested(self.name, max(EPSILONS))
        factor = REFERENCE_FACTOR * largest.rate / own.rate
        rates = [f"training.learning_rate={own.rate:g}", f"simulation.noiseless_factor={factor:.4g}"]
        return load(self.path, [*own.changes, *rates, f"simulation.seed={self.seed}"])


@cache
def suggested(name: str, epsilon: float) -> Suggested:
    """Plan a set's study at an epsilon; with the people held out who are so under every seed.

    Raises:
        SettingsError: the data set was not fetched.
    """
    path = FOLDER / f"{name}.toml"
    changes = [f"privacy.epsilon={epsilon}"] + [f"simulation.seeds.{one}={SPLIT_SEED}" for one in ("split", "holdout")]
    forecast = plan_file(path, None, changes, epsilon_limit=None, spent_steps=0).forecast
    if forecast.typical_size.helps:
        changes.append(f"federation.typical_size={forecast.typical_size.mean}")
        forecast = plan_file(path, None, changes, epsilon_limit=None, spent_steps=0).forecast
    rate = forecast.head_start or load(path, changes).training.learning_rate
    return Suggested(changes, float(f"{rate:.2g}"))


def cases(names: tuple[str, ...], epsilons: tuple[float, ...], seeds: int) -> list[Case]:
    """List all runs, seed by seed, so that a table of few seeds is there early.

    Raises:
        SettingsError: an unknown set.
    """
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise SettingsError(f"Expected some of {', '.join(SETS)}, got {unknown[0]!r}.")
    return [Case(name, epsilon, seed) for seed in range(1, seeds + 1) for name in names for epsilon in sorted(epsilons)]
