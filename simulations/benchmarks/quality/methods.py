"""`python -m simulations.benchmarks.quality.methods`: ways for a server to step, and one site of five that lies.

Heads alone, on features that are computed once; each site adds its own noise in NumPy, which protects nobody. All ways
of one seed have the same batches and the same noise. Finished cells are lines of OUT/cells.jsonl and are not run again.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console

from shared.command_line import run_command
from shared.files import write_atomically
from shared.privacy.noise_schedule import declared_size, schedule_of
from shared.privacy.signal_to_noise import Batch, Steps, head_rate, mean_batch
from shared.privacy.update_bounds import largest_signal, noise_deviation, widest_site
from shared.study.declaration import Study
from shared.study.schedule import learning_rate_factors
from shared.study.tasks import FEATURE_NORM
from simulations.benchmarks.quality.figures import interval
from simulations.benchmarks.quality.pooled_heads import PooledHeads
from simulations.benchmarks.quality.server_ways import ROBUST, WAYS, Array, RoundNumbers, ServerWay, usual_length
from simulations.experiment.scenario import data_path, load
from simulations.quiet import quiet_libraries

FOLDER, QUALITY = Path("runs/bench/methods"), Path(__file__).parent
RECORDS = {"disaster-messages": 10_000, "vader": 9_000}
EPSILONS, SEEDS, LIARS_EPSILON, SITES_WITH_A_LIAR = (1.0, 3.0, 8.0), 5, 3.0, 5
LIES = {
    "nobody": 1.0,
    "ten times as long": 10.0,
    "turned round, three times as long": -3.0,
    "turned round, as long as is admitted": -math.inf,
    "labels flipped": 1.0,
    "no noise": 1.0,
}
"""What the first of five sites does, and the factor on its update."""
console = Console(soft_wrap=True)


class Records(NamedTuple):
    """A set's features with a one for the bias, labels and sites."""

    features: Array
    labels: NDArray[np.int64]
    sites: NDArray[np.str_]


class Federation:
    """The sites of one set, epsilon and seed.

    Args:
        records: of all sites.
        study: as the set's file declares it, a head alone.
        seed: of split, batches and noise.
        equal: number of equal sites to deal out to; default: the set's own sites.
        lie: of the first site.
    """

    def __init__(
        self, records: Records, study: Study, seed: int, equal: int | None = None, lie: str = "nobody"
    ) -> None:
        self.records, self._seed, self._lie = records, seed, lie
        order = np.random.default_rng([seed, 0]).permutation(len(records.labels))
        self.held_out, train = order[: len(order) // 4], order[len(order) // 4 :]
        own = [train[records.sites[train] == name] for name in np.unique(records.sites)]
        self.sites = np.array_split(train, equal) if equal else own
        sizes = [declared_size(len(site)) for site in self.sites]
        typical = declared_size(round(float(np.mean(sizes)))) if max(sizes) > 1.2 * min(sizes) else None
        self.federation = study.federation.model_copy(update={"typical_size": typical})
        self.rounds, steps, self.sampling_rate = study.federation.rounds, study.training.local_steps, 0.1
        self.sigma = schedule_of(study).noise_multiplier
        self.batches = [Batch(0.1 * size, 0.1 * self.federation.divisor_size(size)) for size in sizes]
        factors = learning_rate_factors(round_number=1, local_steps=self.rounds * steps, rounds=1)
        steps_of_run = Steps(factors, self.sigma, study.privacy.clip_norm, mean_batch(self.batches))
        self.rate = head_rate(steps_of_run, feature_length=FEATURE_NORM)
        self.factors = np.array(factors).reshape(self.rounds, steps)
        self.shape = (int(records.labels.max()) + 1, records.features.shape[1])

    def accuracy(self, way: ServerWay) -> float:
        """Train a head by one way; return its accuracy on held-out records."""
        adapters, adapter, memory = list[Array](), np.zeros(self.shape), dict[str, Any]()
        for number in range(self.rounds):
            updates = [self._update(site, number, adapter, way) for site in range(len(self.sites))]
            most = self._longest_admitted(number, way.rate * self.rate)
            admitted = [site for site, update in enumerate(updates) if np.linalg.norm(update) <= most]
            numbers = self._numbers(number, way.rate * self.rate, admitted, memory)
            adapter = adapter + way.combine(numbers, [updates[site] for site in admitted])
            adapters.append(adapter)
        final = np.mean(adapters[-way.averaged :], axis=0)
        guesses = (self.records.features[self.held_out] @ final.T).argmax(axis=1)
        return float((guesses == self.records.labels[self.held_out]).mean())

    def _update(self, site: int, number: int, start: Array, way: ServerWay) -> Array:
        draws, own, rate = np.random.default_rng([self._seed, 1, site, number]), self.sites[site], way.rate * self.rate
        lie, weights = self._lie if site == 0 else "nobody", start.copy()
        for factor in self.factors[number]:
            batch = own[draws.random(len(own)) < self.sampling_rate]
            total = self._clipped_sum(weights, batch, flipped=lie == "labels flipped")
            noise = self.sigma * draws.standard_normal(self.shape)
            total += 0 if lie == "no noise" else noise
            weights = weights - rate * factor * (total / self.batches[site].divisor + way.proximal * (weights - start))
        update: Array = weights - start
        if LIES[lie] == -math.inf:
            return -0.999 * self._longest_admitted(number, rate) / float(np.linalg.norm(update)) * update
        return LIES[lie] * update

    def _clipped_sum(self, weights: Array, batch: NDArray[np.int64], *, flipped: bool) -> Array:
        features, labels = self.records.features[batch], self.records.labels[batch]
        labels = (labels + 1) % self.shape[0] if flipped else labels
        outputs = features @ weights.T
        errors = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        errors /= errors.sum(axis=1, keepdims=True)
        errors[np.arange(len(batch)), labels] -= 1
        lengths = np.linalg.norm(errors, axis=1) * np.linalg.norm(features, axis=1)
        total: Array = (errors / (lengths + 0.01)[:, None]).T @ features
        return total

    def _numbers(self, number: int, rate: float, sites: Collection[int], memory: dict[str, Any]) -> RoundNumbers:
        deviations = [self._deviation(site, number, rate) for site in sites]
        first = [self._deviation(site, 0, rate) for site in sites]
        signals = [float(self.factors[number].sum()) * self.batches[site].weight for site in sites]
        dimension = math.prod(self.shape)
        lengths = [
            usual_length(rate=rate, signal=signal, deviation=deviation, dimension=dimension)
            for signal, deviation in zip(signals, deviations, strict=True)
        ]
        noise = math.sqrt(sum(deviation**2 for deviation in first)) / len(first)
        return RoundNumbers(number, deviations, noise, lengths, float(self.factors[number].mean()), memory)

    def _deviation(self, site: int, number: int, rate: float) -> float:
        return self._bound(number, rate, self.batches[site])[1]

    def _longest_admitted(self, number: int, rate: float) -> float:
        """Return the bound of the server's update filter."""
        units, divisor = (self.sampling_rate * size for size in widest_site(self.federation))
        signal, deviation = self._bound(number, rate, Batch(units, divisor))
        return signal + deviation * (math.sqrt(math.prod(self.shape)) + 6)

    def _bound(self, number: int, rate: float, batch: Batch) -> tuple[float, float]:
        common = {"rate": rate, "factors": self.factors[number], "clip_norm": 1.0, "divisor": batch.divisor}
        noise = noise_deviation(noise_multiplier=self.sigma, **common)
        return largest_signal(expected_batch=batch.units, **common), noise


def main(
    epsilons: Annotated[list[float] | None, typer.Option("--epsilon", help="May be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1 to this one.")] = SEEDS,
    out: Annotated[Path, typer.Option(help="Folder of finished cells and of features.")] = FOLDER,
) -> None:
    """Run the cells that are not done yet, and print both tables."""
    quiet_libraries()
    path, cells = out / "cells.jsonl", dict[tuple[Any, ...], dict[str, float]]()
    for line in path.read_text().splitlines() if path.exists() else ():
        name, epsilon, seed, lie, accuracy = json.loads(line)
        cells[name, epsilon, seed, lie] = accuracy
    records = cache(lambda name: _records(name, out / "features"))
    wanted = [
        (name, epsilon, seed, lie)
        for seed, name in product(range(1, seeds + 1), RECORDS)
        for epsilon, lie in [*product(epsilons or EPSILONS, [""]), *product([LIARS_EPSILON], LIES)]
    ]
    for key in wanted:
        if key not in cells:
            cells[key] = cell(records(key[0]), *key)
            lines = (json.dumps([*one, accuracy]) + "\n" for one, accuracy in cells.items())
            write_atomically(path, "".join(lines).encode())
    for row in (*table({key: cells[key] for key in wanted if not key[3]}), "", *liars(cells, wanted)):
        console.print(row, markup=False, highlight=False)


def cell(records: Records, name: str, epsilon: float, seed: int, lie: str) -> dict[str, float]:
    """Run every way of one set, epsilon and seed, or the robust ones beside one lie."""
    federation = Federation(records, _study(name, epsilon), seed, SITES_WITH_A_LIAR if lie else None, lie or "nobody")
    return {way: federation.accuracy(WAYS[way]) for way in (ROBUST if lie else WAYS)}


def table(cells: Mapping[tuple[Any, ...], Mapping[str, float]]) -> Iterator[str]:
    """Yield each way's points beside the mean, by set and epsilon, in Markdown."""
    columns = list(dict.fromkeys((name, epsilon) for name, epsilon, _, _ in cells))
    yield f"| tried | {' | '.join(f'`{name}`, ε = {epsilon:g}' for name, epsilon in columns)} |"
    yield "|" + "---|" * (1 + len(columns))
    for way in WAYS:
        own = [[cell for key, cell in cells.items() if key[:2] == column] for column in columns]
        yield f"| {way} | {' | '.join(_shown(some, some, way) for some in own)} |"


def liars(cells: Mapping[tuple[Any, ...], Mapping[str, float]], wanted: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """Yield what a lie costs, by set and by way: points beside the honest mean of the same seed."""
    by_lie = defaultdict[tuple[str, str], list[tuple[Any, ...]]](list)
    for key in wanted:
        if key[3]:
            by_lie[key[0], key[3]].append(key)
    yield f"| set | one of five | {' | '.join(ROBUST)} |"
    yield "|" + "---|" * (2 + len(ROBUST))
    for (name, lie), keys in by_lie.items():
        honest = [cells[*key[:3], "nobody"] for key in keys]
        lied = [cells[key] for key in keys]
        yield f"| `{name}` | {lie} | {' | '.join(_shown(lied, honest, way) for way in ROBUST)} |"


def _shown(cells: Sequence[Mapping[str, float]], beside: Sequence[Mapping[str, float]], way: str) -> str:
    if cells is beside and way == "mean":
        return f"{sum(cell[way] for cell in cells) / len(cells):.3f}"
    points, low, high = interval([100 * (cell[way] - other["mean"]) for cell, other in zip(cells, beside, strict=True)])
    return f"{points:.1f}" + ("" if math.isnan(low) else f" ({low:.1f} to {high:.1f})")


def _study(name: str, epsilon: float) -> Study:
    changes = ["adapter.method=head-only", f"privacy.epsilon={epsilon}"]
    return load(QUALITY / f"{name}.toml", changes).as_study()


def _records(name: str, cache_folder: Path) -> Records:
    path = QUALITY / f"{name}.toml"
    scenario = load(path, ["adapter.method=head-only"])
    heads = PooledHeads(scenario, path, RECORDS[name], cache_folder)
    sites = pd.read_csv(data_path(scenario, path), usecols=["site"])["site"].loc[heads.rows]
    return Records(heads.features, heads.batch["target"].squeeze(1).numpy(), sites.to_numpy(str))


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
