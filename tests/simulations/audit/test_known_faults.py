"""Two faults that broke the promise once, put back by a patch: records and adapters of their own show them.

Canaries do not: their gradients are given, and their rounds succeed. Shown is the sensitivity itself, in whole numbers:
how far the sum that noise is added to moves with one record.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from client.vault.training.optimizer import PrivateOptimizer
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.trainer import PrivateTrainer
from shared.adapted_model.model import build
from shared.privacy.grid import GRID, sensitivity
from shared.protocol.messages import Status, TrainTask
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from simulations.audit.audited_site import tiny_model
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Studies, Records = Callable[..., Study], Callable[..., Dataset]
Sum = NDArray[np.float64]


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sum]]:
    """Every step's whole numbers, as they stand before noise is added."""
    seen: list[Sum] = []
    add_noise = PrivateOptimizer.add_noise

    def looked_at(optimizer: PrivateOptimizer) -> None:
        assert optimizer.summed is not None
        seen.append(optimizer.summed.numpy().copy())
        add_noise(optimizer)

    monkeypatch.setattr(PrivateOptimizer, "add_noise", looked_at)
    yield seen


def moved(one: Sum, other: Sum) -> float:
    """How far two sums are apart, in clipping norms; whole numbers below 2^53 are exact."""
    return float(np.linalg.norm(one - other)) * GRID


def site(study: Study, records: Dataset) -> RoundTrainer:
    return RoundTrainer(
        study,
        build(study),
        records,
        declared_size=800,
        randomness=lambda number: SeededRandomnessForSimulation(7, number),
    )


def leave_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the first fault back: gradients that a failed step left are added to those of the next batch."""
    honest = PrivateTrainer.per_example_gradients

    def stale(trainer: PrivateTrainer, indices: Sequence[int]) -> None:
        trained: list[Any] = [p for p in trainer.model.parameters() if p.requires_grad]
        leftovers = [getattr(p, "grad_sample", None) for p in trained]
        honest(trainer, indices)
        for parameter, leftover in zip(trained, leftovers, strict=True):
            if leftover is not None:
                parameter.grad_sample = parameter.grad_sample + leftover

    monkeypatch.setattr(PrivateTrainer, "per_example_gradients", stale)


def sum_after_failure(
    study: Study, records: Dataset, monkeypatch: pytest.MonkeyPatch, sums: list[Sum], *, fault: bool
) -> Sum:
    """Let round 1 fail where a physical batch holds one record, if there is such a batch; return round 2's sum."""
    tested = site(study, records)
    accumulate, armed = PrivateOptimizer.accumulate, [True]

    def failing(optimizer: PrivateOptimizer, count: int) -> None:
        if armed and count == 1:
            armed.clear()
            raise torch.OutOfMemoryError("CUDA out of memory (simulated once)")
        accumulate(optimizer, count)

    zero = np.zeros(tested.dimension, np.float32)
    with monkeypatch.context() as context:
        context.setattr(PrivateOptimizer, "accumulate", failing)
        first = tested.attempt(TrainTask(study.sha256, "run", 1, zero), tested.release)
    assert (first.status is Status.FAILED) == (not armed)
    sums.clear()
    with monkeypatch.context() as context:
        if fault:
            leave_gradients(context)
        second = tested.attempt(TrainTask(study.sha256, "run", 2, zero), tested.release)
    assert second.status is Status.TRAINED
    return sums[0]


@pytest.mark.parametrize("fault", [False, True])
def test_a_failed_round_that_leaves_gradients_shows_in_the_next_sum(
    make_study: Studies, records_of: Records, monkeypatch: pytest.MonkeyPatch, sums: list[Sum], fault: bool
) -> None:
    generator = np.random.default_rng(1)
    short = [generator.integers(5, 60, 6).tolist() for _ in range(40)]
    secret = generator.integers(5, 60, 20).tolist()  # so long that it is alone in its batch
    study = make_study(adapter={"layers": "last:1"}, training={"local_steps": 1}, privacy={"sampling_rate": 1.0})
    labels = [number % 2 for number in range(41)]
    other = sum_after_failure(study, records_of(short, labels[:40]), monkeypatch, sums, fault=fault)
    one = sum_after_failure(study, records_of([*short, secret], labels), monkeypatch, sums, fault=fault)
    if fault:
        assert moved(one, other) > 2 * sensitivity(1.0)
    else:
        assert 0 < moved(one, other) <= sensitivity(1.0)


def batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the second fault back: all records of a step share one batch, whose rows are as many as they are."""
    monkeypatch.setattr(PrivateTrainer, "rows_of", lambda _trainer, _shape: 1)
    monkeypatch.setattr(PrivateTrainer, "physical_batches", lambda _trainer, chosen: [chosen.tolist()])


def hostile(trainer: PrivateTrainer, seed: int) -> NDArray[np.float32]:
    """Rows of the head that are huge and orthogonal to the features of record 0: its outputs are rounding errors."""
    model = trainer.model
    features = trainer.activations.states([0])[0][0].double().numpy()
    direction = features / np.linalg.norm(features)
    generator = np.random.default_rng(seed)

    def part(name: str, shape: tuple[int, ...]) -> Any:
        rows = generator.standard_normal(shape)
        if name != "head.weight":
            return np.zeros(shape)
        rows -= np.outer(rows @ direction, direction)
        return 1e9 * rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return np.concatenate([part(name, shape).ravel() for name, shape in model.layout.tensors]).astype(np.float32)


def sensitivity_under_hostile_adapters(trainer: PrivateTrainer) -> float:
    """The most that the last record moves the sum, over adapters and numbers of other records."""

    def summed(units: Sequence[int]) -> Sum:
        optimizer = trainer.optimizer(trainer.plan.release(1))
        for count in trainer.gradients(np.array(units, np.int64)):
            optimizer.accumulate(count)
        assert optimizer.summed is not None
        return optimizer.summed.numpy()

    last, most = len(trainer.activations.records) - 1, 0.0
    for seed in range(10):
        trainer.model.load(hostile(trainer, seed))
        for others in (1, 2, 3, 7, 15):
            most = max(most, moved(summed([*range(others), last]), summed(range(others))))
    return most


@pytest.mark.parametrize("fault", [False, True])
def test_batches_whose_rows_depend_on_company_show_under_hostile_adapters(
    make_study: Studies, records_of: Records, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: bool
) -> None:
    """One record or two are other products to a matrix kernel: of a vector, or of a matrix."""
    generator = np.random.default_rng(3)
    known, secret = generator.integers(5, 60, 10).tolist(), generator.integers(5, 60, 10).tolist()
    torch.manual_seed(1)  # of the model's weights: how much the fault shows differs from model to model
    source = str(tiny_model(tmp_path, 256))
    study = make_study(model={"source": source}, task={"labels": ["a", "b", "c", "d"]}, adapter={"method": "head-only"})
    trainer = site(study, records_of([known] * 15 + [secret], [0] * 15 + [1])).trainer()
    if fault:
        batches_of_any_size(monkeypatch)
        assert sensitivity_under_hostile_adapters(trainer) > 1.1 * sensitivity(1.0)
    else:
        assert 0 < sensitivity_under_hostile_adapters(trainer) <= sensitivity(1.0)
