"""The real sets that quality is measured on, three of them with natural sites, and what is run on each.

Every set is one scenario beside this file; parts of them, so that a run takes minutes. The head's rate and
share are the defaults, and the adapter's rate is the one that `fedvault-sim plan` suggests; of digits, whose sites are
small, its share too. Of clothing, the set on which the head is not enough, rates were chosen on other images (the data
set `fashion-choices`).
"""

from dataclasses import dataclass
from pathlib import Path

from shared.errors import SettingsError
from simulations.scenario import Scenario, load

FOLDER = Path(__file__).parent
SETS = ("vader", "disaster-messages", "movie-reviews", "digits", "fashion")
EPSILONS = (1.0, 3.0, 8.0)
SEEDS = 3
PRIVATE = ("majority", "head-federated", "site-alone", "textbook", "federated", "central")
WITHOUT_PRIVACY = ("head-without-privacy", "without-privacy")
SHORT = ("head-federated", "federated")
"""What the paired difference needs."""


@dataclass(frozen=True)
class Case:
    """One run: a set, an epsilon, a seed."""

    name: str
    epsilon: float
    seed: int
    arms: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The scenario's file."""
        return FOLDER / f"{self.name}.toml"

    def scenario(self) -> Scenario:
        """The scenario with this case's values."""
        changes = [f"privacy.epsilon={self.epsilon}", f"simulation.seed={self.seed}", f"simulation.arms={[*self.arms]}"]
        return load(self.path, changes)

    def folder(self, root: Path) -> Path:
        """Where the run is kept."""
        return root / self.name / f"seed-{self.seed}" / f"epsilon-{self.epsilon:g}-{len(self.arms)}-arms"


def cases(names: tuple[str, ...], epsilons: tuple[float, ...], seeds: int, *, short: bool) -> list[Case]:
    """All runs, seed by seed, so that a table of few seeds is there early. Arms without privacy know no epsilon: they
    are run once per seed, with the largest.

    Raises:
        SettingsError: an unknown set.
    """
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise SettingsError(f"Expected some of {', '.join(SETS)}, got {unknown[0]!r}.")
    return [
        Case(name, epsilon, seed, SHORT if short else _arms(epsilon == max(epsilons)))
        for seed in range(1, seeds + 1)
        for name in names
        for epsilon in epsilons
    ]


def _arms(with_references: bool) -> tuple[str, ...]:
    return (*PRIVATE, *WITHOUT_PRIVACY) if with_references else PRIVATE
