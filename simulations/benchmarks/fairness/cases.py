"""The sets on which fairness is measured, and the scenario of each run."""

from dataclasses import dataclass
from pathlib import Path

from shared.errors import SettingsError
from simulations.experiment.scenario import Scenario, load
from simulations.forecast import plan_file

FOLDER = Path(__file__).parent
SETS = ("adult", "schools", "randhie", "compas")
EPSILONS = (0.5, 1.0, 3.0, 8.0)


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

        Raises:
            SettingsError: the data set was not fetched.
        """
        changes = [f"privacy.epsilon={self.epsilon}", f"simulation.seed={self.seed}"]
        forecast = plan_file(self.path, None, changes, epsilon_limit=None, spent_steps=0).forecast
        if forecast.typical_size.helps:
            changes.append(f"federation.typical_size={forecast.typical_size.mean}")
            forecast = plan_file(self.path, None, changes, epsilon_limit=None, spent_steps=0).forecast
        if forecast.head_start is not None:
            changes.append(f"training.learning_rate={forecast.head_start:.2g}")
        return load(self.path, changes)


def cases(names: tuple[str, ...], epsilons: tuple[float, ...], seeds: int) -> list[Case]:
    """List all runs, seed by seed, so that a table of few seeds is there early.

    Raises:
        SettingsError: an unknown set.
    """
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise SettingsError(f"Expected some of {', '.join(SETS)}, got {unknown[0]!r}.")
    return [Case(name, epsilon, seed) for seed in range(1, seeds + 1) for name in names for epsilon in sorted(epsilons)]
