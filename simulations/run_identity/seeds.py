"""The seeds of a run, source by source: runs that differ in them alone repeat one setting. Pure, no IO."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from simulations.run_identity.settings import deciding, section_of

SEED_KEYS = "simulation.seed"
"""Also of simulation.seeds: runs that differ in these alone repeat one setting."""
Source = Literal["noise", "batches", "split", "holdout"]
SOURCES: tuple[Source, ...] = get_args(Source)
SHARED = "runs that share one of their seeds and differ in another are no independent repeats"


class RunSeeds(NamedTuple):
    """What a run drew from; a source that has no seed of its own has the run's."""

    seed: Any
    """`simulation.seed`."""
    noise: Any
    batches: Any
    split: Any
    holdout: Any

    @property
    def in_words(self) -> str:
        """Return the seed, with those that are set apart: `1`, or `1 with noise 2`."""
        apart = [f"{name} {getattr(self, name)}" for name in SOURCES if getattr(self, name) != self.seed]
        return f"{self.seed} with {' and '.join(apart)}" if apart else str(self.seed)


def seeds_of(scenario: Mapping[str, Any]) -> RunSeeds:
    """Return the seeds of a scenario as run."""
    simulation = section_of(scenario, "simulation")
    seed, apart = simulation.get("seed", 0), section_of(simulation, "seeds")
    own = (apart.get(name) for name in SOURCES)
    return RunSeeds(seed, *(seed if one is None else one for one in own))


def without_seed(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs of one setting have in common: all that changes figures, but the seeds."""
    decided = deciding(scenario)
    simulation = {key: value for key, value in decided["simulation"].items() if key not in ("seed", "seeds")}
    return {**decided, "simulation": simulation}


def varying(runs: Sequence[RunSeeds]) -> tuple[Source, ...]:
    """Return the sources whose seeds differ between runs."""
    return tuple(name for name in SOURCES if len({getattr(one, name) for one in runs}) > 1)


def crossed(runs: Sequence[RunSeeds]) -> bool:
    """Return whether some runs share a seed that others differ in: such runs are no independent repeats."""
    return any(1 < len({getattr(one, name) for one in runs}) < len(runs) for name in SOURCES)
