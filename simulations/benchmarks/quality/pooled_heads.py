"""A head alone on features that are computed once: every way of adding noise takes the same steps, in seconds.

A sum over sites is the sum over all their records, whoever adds it up. So local noise, shared noise and one place
differ in one number, the noise in that sum, and are compared here on the same batches and the same draws, each at its
own scale. A step is the server's own (`next_adapter`); gradients and clipping are those of nodes, for a linear head,
which a test compares with a node's own sum. Noise is drawn by NumPy and rounded to the nodes' grid: it protects nobody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from client.vault.training.optimizer import AUTOMATIC_STABILITY
from server.aggregation.opened_sum import Sum, next_adapter, step_numbers
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.base_models.locate import find
from shared.errors import DataError
from shared.privacy.grid import GRID, NOISE_STEPS
from shared.protocol.messages import Vector
from shared.records.batches import Batch
from shared.secure_sum.thresholds import FEWEST_NODES, Thresholds
from shared.study.declaration import Study
from shared.study.schedule import round_factors
from shared.tasks.kind import OutputKind
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table
from simulations.experiment.scenario import Scenario, data_path

CACHE_BYTES = 2**30


@dataclass(frozen=True)
class Way:
    """A way of adding noise to the sum of all sites' gradients."""

    noise: float
    """Standard deviation of the sum's noise, in clipping norms."""
    rate: float
    """Learning rate of the first step."""
    answering: int | None = None
    """Sites that answer each round, drawn anew; default: all."""
    momentum: float = 0.0
    """Of the server's step."""
    averaged: int = 1
    """Rounds whose adapters are averaged at the end."""


class PooledHeads:
    """The records of one table in a fixed random order, as features of a frozen base model.

    Args:
        scenario: its table, base model and task; only the head is trained.
        path: of its file, which the table's place is relative to.
        count: records to use.
        cache: folder for features.

    Raises:
        DataError: the table has fewer usable records.
    """

    def __init__(self, scenario: Scenario, path: Path, count: int, cache: Path) -> None:
        kind = task_kind(scenario.task)
        reader = Table(kind, scenario.simulation.data.columns)
        part = reader.read(data_path(scenario, path)).sample(frac=1, random_state=0).head(2 * count)
        part = part[~pd.Series(reader.contents(part), index=part.index).duplicated()]
        self.model = build(scenario.as_study())
        records = reader.encode(part, kind.processor(find(scenario.model))).records
        usable = np.flatnonzero(records.usable)
        if len(usable) < count:
            raise DataError(f"Expected {count} usable records, got {len(usable)}.")
        self.records = records.select(usable[:count])
        self.rows = part.index[usable[:count]]
        """Number of each record's row in the table."""
        activations = open_activations(
            self.model, self.records, torch.device("cpu"), folder=cache, limit_bytes=CACHE_BYTES
        )
        self.batch = activations.batch(range(count))

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """Features of all records, with a one for the bias (records, width + 1)."""
        states = self.batch["states"].squeeze(1).double().numpy()
        return np.concatenate([states, np.ones((len(states), 1))], axis=1)

    def trained(self, study: Study, way: Way, sites: Sequence[NDArray[np.int64]], seed: int) -> Vector:
        """Train a study with shared noise of these sites' records, with another noise in its sums.

        Args:
            study: one step a round, one typical size.
            way: of adding noise.
            sites: numbers of each site's records.
            seed: of batches and noise; ways of one seed have the same draws.
        """
        # rates and divisor are the same for any number of nodes, and nothing else of these is used
        numbers = step_numbers(study, self.model.layout, 1, Thresholds.by_default(FEWEST_NODES))
        first, rounds = numbers.rates / study.training.learning_rate * way.rate, study.federation.rounds
        adapter: Vector = np.zeros(self.model.layout.length, np.float32)
        velocity, last = np.zeros(len(adapter)), list[Vector]()
        for number in range(1, rounds + 1):
            draws = np.random.default_rng([seed, number])
            drawn = [site[draws.random(len(site)) < study.privacy.sampling_rate] for site in sites]
            noise = draws.standard_normal(len(adapter))
            nodes = len(sites) if way.answering is None else way.answering
            present = sorted(draws.permutation(len(sites))[:nodes].tolist())
            total = self.clipped_sum(study, adapter, np.concatenate([drawn[place] for place in present]))
            total += np.rint(way.noise * NOISE_STEPS * noise).astype(np.int64)
            (factor,) = round_factors(study, number)
            step = next_adapter(np.zeros_like(adapter), total, nodes, replace(numbers, rates=factor * first))
            velocity = way.momentum * velocity + step
            adapter = (adapter + velocity).astype(np.float32)
            last = [*last, adapter][-way.averaged :]
        return np.asarray(np.mean(last, axis=0, dtype=np.float64), np.float32)

    def clipped_sum(self, study: Study, adapter: Vector, indices: NDArray[np.int64]) -> Sum:
        """Return the sum of some records' clipped gradients on the nodes' grid, in the packed adapter's order."""
        self.model.load(adapter)
        batch = _rows(self.batch, indices)
        with torch.no_grad():
            outputs = self.model.outputs(batch)
        outputs.requires_grad_()
        self.model.kind.losses(outputs, batch).sum().backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None  # noqa: S101 - backward was just called
        errors, features = outputs.grad.double().numpy(), self.features[indices]
        norm = study.privacy.clip_norm
        lengths = np.linalg.norm(errors, axis=1) * np.linalg.norm(features, axis=1)
        scaled = errors * (norm / (lengths + AUTOMATIC_STABILITY * norm) / (GRID * norm))[:, None]
        # of each record, rounded to the grid before it is added
        total = np.zeros((errors.shape[1], features.shape[1]), np.int64)
        for output in range(errors.shape[1]):
            total[output] = np.rint(scaled[:, output, None] * features).sum(axis=0).astype(np.int64)
        parts = {"weight": total[:, :-1], "bias": total[:, -1]}
        return np.concatenate([parts[name.rsplit(".", 1)[-1]].ravel() for name, _ in self.model.layout.tensors])

    def quality(self, adapter: Vector, indices: NDArray[np.int64]) -> float:
        """Return the task's main metric of an adapter on some records."""
        self.model.load(adapter)
        batch, kind = _rows(self.batch, indices), self.model.kind
        assert isinstance(kind, OutputKind)  # noqa: S101 - what has a head on pooled features is one
        with torch.no_grad():
            evidence = kind.compare(self.model.outputs(batch), batch, self.records, indices.tolist())
        return kind.metrics(evidence)[kind.metric]


def dealt(records: int, sites: int, size: int, seed: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Deal records out to equal sites at random; return each site's numbers, and those that are held out."""
    order = np.random.default_rng([seed, 0]).permutation(records)
    ends = [size * place for place in range(sites + 1)]
    return [order[a:b] for a, b in pairwise(ends)], order[ends[-1] :]


def majority(heads: PooledHeads, held_out: NDArray[np.int64]) -> float:
    """Return the metric of one answer for all: that of a head of zeros, or of the most frequent label if it is told."""
    kind, records = heads.model.kind, heads.records
    evidence = kind.constant([records], records.select(held_out))
    return math.nan if evidence is None else kind.metrics(evidence)[kind.metric]


def _rows(batch: Batch, indices: NDArray[np.int64]) -> Batch:
    return {name: tensor[torch.from_numpy(indices)] for name, tensor in batch.items()}
