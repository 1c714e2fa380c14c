"""The real sets that quality is measured on, six of them with natural sites, and what is run on each.

Every set is one scenario beside this file; parts of them, so that a run takes minutes. Both rates and the head's share
are what `fedvault-sim plan` suggests at each epsilon, from public numbers.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from shared.errors import SettingsError
from simulations.experiment.scenario import Scenario, load

FOLDER = Path(__file__).parent
SETS = ("vader", "disaster-messages", "movie-reviews", "digits", "fashion", "emoji", "randhie", "schools")
EPSILONS = (1.0, 3.0, 8.0)
SEEDS = 3
PRIVATE = ("majority", "head-federated", "single-site", "textbook", "federated", "pooled")
WITHOUT_PRIVACY = ("head-without-privacy", "without-privacy")
SHORT = ("head-federated", "single-site", "federated")
"""What the paired differences need."""


@dataclass(frozen=True)
class Case:
    """One run: a set, an epsilon, a seed."""

    name: str
    epsilon: float
    seed: int
    arms: tuple[str, ...]
    whitening: bool = True
    """Whether heads are whitened where noise allows it."""

    @property
    def path(self) -> Path:
        """Return the scenario's file."""
        return FOLDER / f"{self.name}.toml"

    @property
    def changes(self) -> list[str]:
        """Return what this case changes in its file, as `--set` would."""
        return [f"privacy.epsilon={self.epsilon}", f"simulation.seed={self.seed}", f"simulation.arms={[*self.arms]}"]

    def scenario(self) -> Scenario:
        """Load the scenario with this case's values."""
        return load(self.path, self.changes)

    def or_finished(self, root: Path) -> "Case":
        """Return this case, or one that has more arms and is finished."""
        for arms in (_arms(with_references=False), _arms(with_references=True)):
            larger = replace(self, arms=arms)
            if set(self.arms) < set(arms) and (larger.folder(root) / "result.json").exists():
                return larger
        return self

    def folder(self, root: Path) -> Path:
        """Return the folder of the run."""
        plain = "" if self.whitening else "-not-whitened"
        return root / self.name / f"seed-{self.seed}" / f"epsilon-{self.epsilon:g}-{len(self.arms)}-arms{plain}"


def cases(
    names: tuple[str, ...], epsilons: tuple[float, ...], seeds: int, *, short: bool, whitening: bool = True
) -> list[Case]:
    """List all runs, seed by seed, so that a table of few seeds is there early.

    Arms without privacy know no epsilon: they are run once per seed, with the largest.

    Raises:
        SettingsError: an unknown set.
    """
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise SettingsError(f"Expected some of {', '.join(SETS)}, got {unknown[0]!r}.")
    return [
        Case(name, epsilon, seed, SHORT if short else _arms(with_references=epsilon == max(epsilons)), whitening)
        for seed in range(1, seeds + 1)
        for name in names
        for epsilon in epsilons
    ]


def _arms(*, with_references: bool) -> tuple[str, ...]:
    return (*PRIVATE, *WITHOUT_PRIVACY) if with_references else PRIVATE
