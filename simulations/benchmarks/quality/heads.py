"""Compare learning rates of a private head: every fixed one beside the one that a plan suggests, on two kinds of text.

The data sets are for this choice alone; nothing else is measured on them. Rates of one row share batches and noise.
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from client.vault.training.trainer import LearningRates, PrivateTrainer
from server.aggregation.mean import UniformMean
from server.forecast.forecast import forecast_study
from shared.adapted_model.frozen_activations import FrozenActivations, open_activations
from shared.adapted_model.model import build, layout_of
from shared.base_models.locate import find
from shared.errors import SettingsError
from shared.privacy.noise_schedule import NoiseSchedule, declared_size, schedule_of
from shared.protocol.messages import Vector
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.schedule import learning_rate_factors
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

SITES = ((300, 300, 300, 300), (300, 600, 1200, 2800))
HELD_OUT, EPSILONS, SEEDS = 2000, (1.0, 3.0, 8.0), (1, 2)
RATES = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
DEFAULT = 16.0
CACHE_BYTES = 2**30


@dataclass(frozen=True)
class Classes:
    """A table and its classes: every label is one, or half of the labels each."""

    name: str
    table: Path
    halves: bool = False


TABLES = (
    Classes("Reuters R8", Path("data/reuters/reuters.csv")),
    Classes("20 newsgroups", Path("data/newsgroups/newsgroups.csv")),
    Classes("newsgroups, two halves", Path("data/newsgroups/newsgroups.csv"), halves=True),
)


@dataclass(frozen=True)
class Choice:
    """Accuracies of one study, or of the mean over all; each is a mean over seeds."""

    name: str
    lost_by_plan: float
    """Points of accuracy below the best of the fixed rates."""
    lost_by_default: float
    """The same of rate 16."""
    sites: str = ""
    epsilon: float | None = None
    best_rate: float | None = None
    best: float | None = None
    """Accuracy at the best of the fixed rates."""
    plan_rate: float | None = None
    plan: float | None = None
    """Accuracy at the rate that the plan suggests."""
    default: float | None = None
    """Accuracy at 16, the default."""


def rows() -> Iterator[Choice]:
    """Measure every study, then the mean over all of them.

    Raises:
        SettingsError: a table was not fetched.
    """
    choices: list[Choice] = []
    with tempfile.TemporaryDirectory() as cache:
        for classes in TABLES:
            labels, cells = read(classes)
            federation = Federation(study_of(labels, EPSILONS[0]), cells, Path(cache))
            for sizes in SITES:
                for epsilon in EPSILONS:
                    choices.append(chosen(classes.name, federation, study_of(labels, epsilon), sizes))
                    yield choices[-1]
    yield Choice(
        "mean",
        lost_by_plan=statistics.mean(choice.lost_by_plan for choice in choices),
        lost_by_default=statistics.mean(choice.lost_by_default for choice in choices),
    )


def read(classes: Classes) -> tuple[list[str], dict[str, list[str]]]:
    """Read labels and columns of a table, its rows in a fixed random order."""
    if not classes.table.exists():
        hint = f"Run: fedvault-sim data fetch {classes.table.stem}"
        raise SettingsError(f"Expected {classes.table}, which is not there.", hint=hint)
    table = pd.read_csv(classes.table, dtype=str, keep_default_na=False)
    table = table.sample(frac=1, random_state=0).head(HELD_OUT + max(map(sum, SITES)))
    labels, column = sorted(set(table["label"])), table["label"]
    if classes.halves:
        column = column.map({label: str(2 * place // len(labels)) for place, label in enumerate(labels)})
        labels = ["0", "1"]
    return labels, {"text": table["text"].tolist(), "label": column.tolist()}


def study_of(labels: Sequence[str], epsilon: float) -> Study:
    """Declare a study of a head alone on MiniLM's features: eight rounds of six steps."""
    declared = {
        "study": {"name": "benchmark"},
        "model": {"source": "bundled:minilm"},
        "task": {"kind": "sequence-classification", "labels": [*labels], "max_length": 48},
        "adapter": {"method": "head-only"},
        "privacy": {"epsilon": epsilon, "delta": 1e-5, "sampling_rate": 0.1},
        "training": {"local_steps": 6},
        "federation": {"rounds": 8},
    }
    return parse(Study, declared, where="benchmark")


class Federation:
    """Sites in this process, whose features are computed once.

    Args:
        study: its base model and task; what else it says does not matter here.
        cells: columns of the table; the first rows are held out.
        cache: folder for features.
    """

    def __init__(self, study: Study, cells: dict[str, list[str]], cache: Path) -> None:
        self._model = build(study)
        kind = self._model.kind
        records = kind.encode(cells, kind.processor(find(study.model))).records
        self._records, self._cache = records, cache
        held_out = self._activations(records.select(np.arange(HELD_OUT)))
        self._features = torch.stack([state.squeeze(0) for state in held_out.states(range(HELD_OUT))])
        self._truth = torch.tensor([int(held_out.records["target"][i][0]) for i in range(HELD_OUT)])

    def accuracies(self, study: Study, sizes: Sequence[int], rates: Sequence[float]) -> list[float]:
        """Return each rate's accuracy, the mean over seeds."""
        ends = HELD_OUT + np.cumsum([0, *sizes])
        sites = [self._activations(self._records.select(np.arange(a, b))) for a, b in pairwise(ends)]
        return [statistics.mean(self._accuracy(study, sites, rate, seed) for seed in SEEDS) for rate in rates]

    def _accuracy(self, study: Study, sites: Sequence[FrozenActivations], rate: float, seed: int) -> float:
        rounds, local_steps = study.federation.rounds, study.training.local_steps
        schedule = schedule_of(study)
        trainers = [self._trainer(study, schedule, site, rate) for site in sites]
        adapter: Vector = np.zeros(self._model.layout.length, np.float32)
        for number in range(1, rounds + 1):
            factors = learning_rate_factors(round_number=number, local_steps=local_steps, rounds=rounds)
            collected = UniformMean(len(adapter))
            for place, trainer in enumerate(trainers):
                noise = SeededRandomnessForSimulation(seed, "heads", place, number)
                collected.add(trainer.train_round(adapter, factors=factors, randomness=noise))
            adapter = collected.result(adapter)
        self._model.load(adapter)
        with torch.no_grad():
            outputs = self._model.kind.answer(self._model.head, self._features, {})
        return float((outputs.argmax(1) == self._truth).float().mean())

    def _trainer(self, study: Study, schedule: NoiseSchedule, site: FrozenActivations, rate: float) -> PrivateTrainer:
        return PrivateTrainer(
            self._model,
            site,
            schedule,
            divisor_size=declared_size(len(site.records)),
            learning_rates=LearningRates(rate, rate),
            micro_batch_tokens=study.performance.micro_batch_tokens,
        )

    def _activations(self, records: Records) -> FrozenActivations:
        return open_activations(self._model, records, torch.device("cpu"), folder=self._cache, limit_bytes=CACHE_BYTES)


def chosen(name: str, federation: Federation, study: Study, sizes: Sequence[int]) -> Choice:
    """Compare the fixed rates with the plan's on one study."""
    declared = {str(place): declared_size(size) for place, size in enumerate(sizes)}
    forecast = forecast_study(study, layout_of(study), declared)
    if forecast.head_start is None:
        raise RuntimeError("Expected a plan that suggests a rate for the head of a classifier, got none.")
    *fixed, by_plan = federation.accuracies(study, sizes, [*RATES, forecast.head_start])
    best, by_default = max(fixed), fixed[RATES.index(DEFAULT)]
    return Choice(
        name=name,
        lost_by_plan=100 * (best - by_plan),
        lost_by_default=100 * (best - by_default),
        sites=" ".join(map(str, sizes)),
        epsilon=study.privacy.epsilon,
        best_rate=RATES[fixed.index(best)],
        best=best,
        plan_rate=forecast.head_start,
        plan=by_plan,
        default=by_default,
    )
