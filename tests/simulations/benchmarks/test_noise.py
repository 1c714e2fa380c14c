"""The three ways of adding noise are compared on what nodes themselves add up, and a stopped comparison goes on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from client.vault.training.optimizer import PrivateOptimizer
from client.vault.training.trainer import LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian
from simulations.benchmarks.quality import noise
from simulations.benchmarks.quality.noise import (
    LOCAL,
    POOLED,
    SETS,
    SHARED,
    SINGLE,
    NoiseSet,
    read_cells,
    step_ways,
    ways,
)
from simulations.benchmarks.quality.pooled_heads import PooledHeads, dealt
from simulations.benchmarks.secure_sum import rows as sum_costs

STUDY = """[study]
name = "small"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["bad", "good"]
max_length = 24
[federation]
smallest_declared_size = 10
[simulation.data]
source = "table.csv"
"""


@pytest.fixture
def small(tmp_path: Path, tiny_bert: Path) -> NoiseSet:
    kinds = ["bad", "good"] * 100
    texts = [f"it was {kind} number {place}" for place, kind in enumerate(kinds)]
    pd.DataFrame({"text": texts, "label": kinds}).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "small.toml").write_text(STUDY.format(model=tiny_bert))
    return NoiseSet(tmp_path / "small.toml", 10, 12, 60)


def test_gradients_are_added_up_as_a_node_adds_them_up(small: NoiseSet, tmp_path: Path) -> None:
    scenario = small.scenario(3.0)
    study, heads = scenario.as_study(), PooledHeads(scenario, small.path, 180, tmp_path / "features")
    adapter = np.random.default_rng(0).normal(size=heads.model.layout.length).astype(np.float32)
    indices = np.arange(40)
    found = heads.clipped_sum(study, adapter, indices)
    activations = FrozenActivations(heads.model, heads.records, torch.device("cpu"))
    trainer = PrivateTrainer(
        heads.model,
        activations,
        schedule_of(study),
        divisor_size=180,
        learning_rates=LearningRates(1.0, 1.0),
        micro_batch_tokens=2048,
    )
    release = schedule_of(study).release(1)
    assert isinstance(release, SharedGaussian)
    optimizer: PrivateOptimizer = trainer.optimizer(release.with_nodes(10, 8, 1))
    for count in trainer.gradients(indices):
        optimizer.accumulate(count)
    assert optimizer.summed is not None and len(found) == heads.model.layout.length
    difference = np.abs(np.sort(found) - np.sort(optimizer.summed.numpy()))
    assert difference.max() < 1e-5 * np.abs(found).max(), "but for the order of the numbers, and float32's rounding"


def test_ways_differ_by_the_noise_that_each_sum_has(small: NoiseSet) -> None:
    study = small.scenario(3.0).as_study()
    found = ways(study, small.sites, small.size)
    assert found[LOCAL].noise / found[POOLED].noise == pytest.approx(10**0.5)
    assert found[SHARED].noise / found[POOLED].noise == pytest.approx((10 / 7) ** 0.5, rel=0.01), "h = 8 - 1"
    assert found["shared, t answer"].answering == 8 and found[LOCAL].rate < found[SHARED].rate < found[POOLED].rate
    assert {how.noise for how in step_ways(study, 10, 12).values()} == {found[SHARED].noise}


def test_records_are_dealt_out_once_and_the_rest_is_held_out() -> None:
    sites, held_out = dealt(100, 4, 20, seed=1)
    assert [len(site) for site in sites] == [20] * 4
    assert sorted(np.concatenate([*sites, held_out]).tolist()) == [*range(100)]


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_a_study_whose_noise_can_be_shared(name: str) -> None:
    scenario = SETS[name].scenario(1.0)
    assert (scenario.federation.secure_sum, scenario.adapter.method) == ("shared", "head-only")
    assert scenario.federation.typical_size == SETS[name].size


@pytest.mark.integration
def test_finished_cells_are_not_run_again(small: NoiseSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "SETS", {"small": small})
    app, out = _command(), tmp_path / "out"
    first = CliRunner().invoke(app, ["small", "--epsilon", "8", "--seeds", "1", "--out", str(out)])
    assert first.exit_code == 0, first.output
    (cell,) = read_cells(out / "cells.jsonl")
    assert cell["quality"].keys() == {SINGLE, LOCAL, SHARED, "shared, t answer", POOLED}
    (out / "cells.jsonl").write_text((out / "cells.jsonl").read_text().replace(f'"{POOLED}": ', f'"{POOLED}": 9'))
    again = CliRunner().invoke(app, ["small", "--epsilon", "8", "--seeds", "2", "--out", str(out)])
    kept, new = read_cells(out / "cells.jsonl")
    assert kept["quality"][POOLED] >= 9 > new["quality"][POOLED] and kept["seed"] == 1, "the line as it was found"
    assert "small: 10 sites of 12 records" in (out / "small.svg").read_text()
    assert "| small | 8 |" in again.output and "| 2 |" in again.output


def _command() -> Callable[..., object]:
    import typer

    app = typer.Typer()
    app.command()(noise.main)
    return app


def test_a_secure_sum_and_secaggplus_open_what_was_sent() -> None:
    (row,) = sum_costs(length=200, turns={4: 1})  # raises if one of them does not
    assert row.node_ms > 0 and row.secaggplus_node_ms > 0
    assert row.sent_kib > 200 * 8 / 1024 and row.secaggplus_sent_kib > 200 * 8 / 1024
