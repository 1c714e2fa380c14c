"""`python -m simulations.benchmarks.quality.noise`: each site's own noise, one shared noise, and one place.

Every set is dealt out to equal sites; only a head is trained. One cell is a set, an epsilon and a seed. Finished cells
are lines of OUT/cells.jsonl and are not run again, so it may be stopped and continued.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shared.command_line import run_command
from shared.errors import SettingsError
from shared.files import write_atomically
from shared.pages.charts import Line, lines, on_white
from shared.privacy.collusion import collusion
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian
from shared.privacy.signal_to_noise import Batch, Steps, head_rate
from shared.study.declaration import Study
from shared.study.schedule import learning_rate_factors
from shared.study.secure_sum import sum_sizes
from shared.study.tasks import FEATURE_NORM
from simulations.benchmarks.quality.figures import interval
from simulations.benchmarks.quality.pooled_heads import PooledHeads, Way, dealt, majority
from simulations.experiment.scenario import Scenario, load
from simulations.quiet import quiet_libraries

FOLDER = Path("runs/bench/noise")
QUALITY, SCENARIOS = Path(__file__).parent, Path(__file__).parents[2] / "scenarios"
EPSILONS, SEEDS, ROUNDS = (1.0, 3.0, 8.0), 5, 48
SINGLE, LOCAL, SHARED = "single site", "local noise", "shared noise"
FEWEST, POOLED = "shared, t answer", "one place"
console = Console(soft_wrap=True)


@dataclass(frozen=True)
class NoiseSet:
    """A table, and the equal sites that it is dealt out to."""

    path: Path
    sites: int
    size: int
    """Records of each site."""
    held_out: int
    changes: tuple[str, ...] = ()

    def scenario(self, epsilon: float) -> Scenario:
        """Load the scenario as a head alone, trained in rounds of one step, with shared noise."""
        sizes = [f"federation.typical_size={self.size}", f"federation.rounds={ROUNDS}"]
        changes = ["adapter.method=head-only", "federation.secure_sum=shared", "training.local_steps=1"]
        own = ["privacy.sampling_rate=0.1", "privacy.delta=1e-5", f"privacy.epsilon={epsilon}"]
        return load(self.path, [*changes, *sizes, *own, *self.changes])


SETS = {
    "vader": NoiseSet(QUALITY / "vader.toml", 30, 230, 1700),
    "disaster-messages": NoiseSet(QUALITY / "disaster-messages.toml", 30, 150, 1500),
    "disaster-topics": NoiseSet(SCENARIOS / "disaster-topics.toml", 30, 150, 1500, ("task.max_length=32",)),
    "clothing": NoiseSet(QUALITY / "fashion.toml", 30, 230, 3000),
    "clinics": NoiseSet(SCENARIOS / "clinics.toml", 40, 79, 2840),
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Sets: {', '.join(SETS)}; default: all.")] = None,
    epsilons: Annotated[list[float] | None, typer.Option("--epsilon", help="May be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1 to this one.")] = SEEDS,
    out: Annotated[Path, typer.Option(help="Folder of finished cells and of features.")] = FOLDER,
    steps: Annotated[bool, typer.Option("--steps", help="Averaged rounds and momentum on shared noise.")] = False,
) -> None:
    """Run the cells that are not done yet, and print the table."""
    quiet_libraries()
    wanted, values = names or list(SETS), epsilons or list(EPSILONS)
    if unknown := set(wanted) - set(SETS):
        raise SettingsError(f"Expected some of {', '.join(SETS)}, got {min(unknown)!r}.")
    path = out / ("steps.jsonl" if steps else "cells.jsonl")
    done = {_key(cell): cell for cell in read_cells(path)}
    open_sets = _OpenSets(out / "features")
    # seed by seed, so that a table of few seeds is there early
    for key in ((name, epsilon, seed) for seed in range(1, seeds + 1) for name in wanted for epsilon in values):
        if key not in done:
            done[key] = open_sets.cell(*key, steps=steps)
            write_atomically(path, "".join(json.dumps(one) + "\n" for one in done.values()).encode())
    cells = [done[key] for key in done if key[0] in wanted and key[1] in values and key[2] <= seeds]
    for name in dict.fromkeys(cell["set"] for cell in cells if not steps):
        own = [cell for cell in cells if cell["set"] == name]
        write_atomically(out / f"{name}.svg", on_white(drawn(own)).encode())
    for line in table(cells, SHARED if steps else POOLED):
        console.print(line, markup=False, highlight=False)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the finished cells of a file; none of one that is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ways(study: Study, sites: int, size: int) -> dict[str, Way]:
    """Return the ways that are compared, each at the rate that a plan suggests for its noise."""
    assert isinstance(study.federation.typical_size, int)  # noqa: S101 - a study with shared noise has one
    shared = schedule_of(study).noise_multiplier
    own = schedule_of(_without_sum(study)).noise_multiplier
    numbers = sum_sizes(sites, study.federation)
    honest, fewest = numbers.honest, numbers.threshold
    noises = {
        SINGLE: (own, 1),
        LOCAL: (own * math.sqrt(sites), sites),
        SHARED: (shared * math.sqrt(sites / honest), sites),
        FEWEST: (shared * math.sqrt(fewest / honest), fewest),
        POOLED: (own, sites),
    }
    by_name = {}
    for name, (noise, nodes) in noises.items():
        by_name[name] = Way(noise, _rate(study, noise, nodes * size), fewest if name == FEWEST else None)
    return by_name


def step_ways(study: Study, sites: int, size: int) -> dict[str, Way]:
    """Return shared noise as it is, with the last rounds averaged, and with momentum at the server."""
    plain = ways(study, sites, size)[SHARED]
    by_name = {SHARED: plain}
    for rounds in (4, 8, 16):
        by_name[f"last {rounds} averaged"] = Way(plain.noise, plain.rate, averaged=rounds)
    for momentum, factor in ((0.5, 0.5), (0.5, 0.63), (0.9, 0.1), (0.9, 0.2)):
        name = f"momentum {momentum:g}, {factor:g} of the rate"
        by_name[name] = Way(plain.noise, factor * plain.rate, momentum=momentum)
    return by_name


def table(cells: Sequence[Mapping[str, Any]], beside: str) -> Iterator[str]:
    """Yield a table in Markdown: means over seeds, and each way's paired difference to another in points."""
    grouped = defaultdict[tuple[str, float], list[Mapping[str, Any]]](list)
    for cell in cells:
        grouped[cell["set"], cell["epsilon"]].append(cell)
    names = list(dict.fromkeys(name for cell in cells for name in cell["quality"]))
    yield f"| set | ε | if all others collude | seeds | one answer | {' | '.join(names)} |"
    yield "|" + "---|" * (5 + len(names))
    for (name, epsilon), some in grouped.items():
        row = [name, f"{epsilon:g}", f"{some[0]['epsilon_if_all_collude']:.0f}", str(len(some))]
        row.append(f"{sum(cell['majority'] for cell in some) / len(some):.3f}")
        for way in names:
            mean = sum(cell["quality"][way] for cell in some) / len(some)
            row.append(f"{mean:.3f}{_difference(some, way, beside)}")
        yield f"| {' | '.join(row)} |"


def drawn(cells: Sequence[Mapping[str, Any]]) -> str:
    """Draw one set's means as SVG, epsilon across, a line for each way."""
    one, series = SETS[cells[0]["set"]], list[Line]()
    for way in (SHARED, POOLED, LOCAL, SINGLE):
        at = defaultdict[float, list[float]](list)
        for cell in cells:
            at[cell["epsilon"]].append(cell["quality"][way])
        series.append(Line(way, [(epsilon, sum(at[epsilon]) / len(at[epsilon])) for epsilon in sorted(at)]))
    title = f"{cells[0]['set']}: {one.sites} sites of {one.size} records"
    return lines(title, series, across="ε", up=cells[0]["metric"]).svg


def _difference(cells: Sequence[Mapping[str, Any]], way: str, beside: str) -> str:
    if way == beside:
        return ""
    points, low, high = interval([100 * (cell["quality"][way] - cell["quality"][beside]) for cell in cells])
    return f", {points:+.1f}" + ("" if math.isnan(low) else f" ({low:+.1f} to {high:+.1f})")


class _OpenSets:
    """Keeps the features of every set that was asked for."""

    def __init__(self, cache: Path) -> None:
        self._cache, self._heads = cache, dict[str, PooledHeads]()

    def cell(self, name: str, epsilon: float, seed: int, *, steps: bool) -> dict[str, Any]:
        """Run one cell."""
        one, study = SETS[name], SETS[name].scenario(epsilon).as_study()
        if name not in self._heads:
            count = one.sites * one.size + one.held_out
            self._heads[name] = PooledHeads(one.scenario(epsilon), one.path, count, self._cache)
        heads = self._heads[name]
        sites, held_out = dealt(len(heads.records), one.sites, one.size, seed)
        quality = {}
        for way, how in (step_ways if steps else ways)(study, one.sites, one.size).items():
            where = sites[:1] if way == SINGLE else sites
            quality[way] = heads.quality(heads.trained(study, how, where, seed), held_out)
        return {
            "set": name,
            "epsilon": epsilon,
            "seed": seed,
            "metric": heads.model.kind.metric,
            "majority": majority(heads, held_out),
            "epsilon_if_all_collude": _if_all_collude(study, one.sites),
            "quality": quality,
        }


def _if_all_collude(study: Study, sites: int) -> float:
    release, numbers = schedule_of(study).release(study.total_steps), sum_sizes(sites, study.federation)
    assert isinstance(release, SharedGaussian)  # noqa: S101 - its noise is shared
    with_nodes = release.with_nodes(numbers.nodes, numbers.threshold, numbers.colluders)
    return collusion(with_nodes, study.privacy.delta).epsilon_if_all_collude


def _without_sum(study: Study) -> Study:
    federation = study.federation.model_copy(update={"secure_sum": None})
    return study.model_copy(update={"federation": federation})


def _rate(study: Study, noise: float, records: int) -> float:
    """Return the head's rate that a plan suggests; the study's own where it suggests none, for several labels."""
    if getattr(study.task, "problem", "single-label") != "single-label":
        return study.training.learning_rate
    factors = [
        factor
        for number in range(1, study.federation.rounds + 1)
        for factor in learning_rate_factors(round_number=number, local_steps=1, rounds=study.federation.rounds)
    ]
    batch = Batch(study.privacy.sampling_rate * records, study.privacy.sampling_rate * records)
    return head_rate(Steps(factors, noise, study.privacy.clip_norm, batch), feature_length=FEATURE_NORM)


def _key(cell: Mapping[str, Any]) -> tuple[str, float, int]:
    return cell["set"], cell["epsilon"], cell["seed"]


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
