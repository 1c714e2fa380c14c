"""Simulated secure sums: the bytes that masks would give, since they cancel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.aggregation.opened_sum import next_adapter, step_numbers
from server.rounds.checkpoints import Checkpoints
from shared.adapted_model.model import build
from shared.errors import SettingsError
from shared.protocol.messages import TrainTask
from shared.records.ragged import load
from shared.study.secure_sum import sum_sizes
from simulations.experiment.arms import arm_folder, read_arm, trained_arms
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Site, reopen
from simulations.progress import SilentProgress
from simulations.results.result import ArmResult, Quality, WorstSite
from simulations.results.wording import spent_in_words
from simulations.run import Run
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from simulations.sites.summing import SummingSite

Scenarios = Callable[..., Scenario]
ONE_PROCESS: dict[str, Any] = {"arms": ("federated",), "evaluate_every": 3, "processes": 1}
SHARED: dict[str, Any] = {"secure_sum": "shared", "typical_size": 90}


def ran(scenario: Scenario, folder: Path, table: pd.DataFrame) -> np.ndarray:
    source = folder.parent / "table.csv"
    table.to_csv(source, index=False)
    run = Run(scenario, source, folder, SilentProgress())
    run.open(resume=False)
    run.execute()
    return final(folder)


def final(folder: Path) -> np.ndarray:
    arm = read_arm(folder, "federated")
    state = Checkpoints(arm_folder(folder, arm.name) / "checkpoints").latest(
        study_sha256=arm.study.sha256, study_run=arm.name
    )
    assert state is not None and state.round == arm.study.federation.rounds
    assert [record["outcome"] for record in state.records] == ["aggregated"] * state.round
    return state.adapter


def by_hand(folder: Path) -> np.ndarray:
    """Sum the sites' vectors as a federation does: each behind masks, of which those of a pair cancel."""
    arm, prepared = read_arm(folder, "federated"), reopen(folder / "prepared")
    model, sizes = build(arm.study), sum_sizes(len(prepared.sites), arm.study.federation)
    adapter, masks = np.zeros(model.layout.length, np.float32), np.random.default_rng(0)
    for number in range(1, 1 + arm.study.federation.rounds):
        total, task = np.zeros(len(adapter), np.int64), TrainTask(arm.study.sha256, arm.name, number, adapter)
        pair = masks.integers(-(2**63), 2**63 - 1, len(adapter))
        for site, mask in zip(prepared.sites, (pair, -pair, np.zeros_like(pair)), strict=True):
            total += mask + summand(arm.study, model, prepared.train_path(site), site, task, sizes, arm.seed)
        adapter = next_adapter(
            adapter, total, len(prepared.sites), step_numbers(arm.study, model.layout, number, sizes)
        )
    return adapter


def summand(study: Any, model: Any, records: Path, site: Site, task: TrainTask, sizes: Any, seed: int) -> np.ndarray:
    def seeded(number: int) -> SeededRandomnessForSimulation:
        return SeededRandomnessForSimulation(seed, "federated", site.name, number, drawn=model.layout.length)

    trainer = SummingSite(study, model, load(records), declared_size=site.declared_size, randomness=seeded)
    trainer.share_noise_with(sizes)
    value = trainer.summand(task, trainer.release)
    assert value is not None
    return value


@pytest.mark.integration
def test_shared_noise_gives_the_bytes_of_the_sites_vectors_summed_by_hand(
    scenario: Scenarios, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = scenario(federation=SHARED, training={"local_steps": 1}, simulation=ONE_PROCESS)
    assert ran(declared, tmp_path / "run", table).tobytes() == by_hand(tmp_path / "run").tobytes()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["arms"]["federated"]["epsilon"] == pytest.approx(8.0, abs=0.01)


@pytest.mark.slow
@pytest.mark.integration
def test_masked_updates_give_the_bytes_of_the_study_without_masks(
    scenario: Scenarios, table: pd.DataFrame, tmp_path: Path
) -> None:
    masked, plain = (
        ran(scenario(federation=federation, simulation=ONE_PROCESS), tmp_path / name, table).tobytes()
        for name, federation in (("masked", {"secure_sum": "masked"}), ("plain", {}))
    )
    assert masked == plain


def test_shared_noise_stands_beside_local_noise_and_one_place(scenario: Scenarios) -> None:
    arms = ("federated", "local-noise", "pooled", "without-privacy", "head-federated", "single-site", "textbook")
    sites = tuple(Site(index, f"site-{index}", 100, 80, 20, 0, 0, 80) for index in range(4))
    shared = scenario(federation=SHARED, training={"local_steps": 1}, simulation={"arms": arms})
    modes = {arm.name: arm.study.federation.secure_sum for arm in trained_arms(shared, sites)}
    assert {name for name, mode in modes.items() if mode == "shared"} == {"federated", "head-federated"}
    assert {"local-noise", "pooled", "without-privacy", "textbook"} <= set(modes)
    local = scenario(federation={}, simulation={"arms": arms})
    assert "local-noise" not in {arm.name for arm in trained_arms(local, sites)}


def test_too_few_sites_for_a_secure_sum_are_refused_before_anything_is_trained(
    scenario: Scenarios, table: pd.DataFrame, tmp_path: Path
) -> None:
    declared = scenario(federation=SHARED, training={"local_steps": 1}, simulation=ONE_PROCESS)
    two = table[table["site"] != "east"]
    with pytest.raises(SettingsError, match="at least 3 nodes"):
        ran(declared, tmp_path / "run", two)


def test_tables_name_what_is_left_of_shared_noise_if_all_other_sites_collude() -> None:
    quality = Quality(
        metric="accuracy",
        higher_is_better=True,
        value=0.5,
        metrics={},
        per_site={"a": 0.5},
        worst_site=WorstSite(site="a", value=0.5),
    )
    plain: dict[str, Any] = {"title": "x", "private": True, "rows": 1, "sampling_rate": 0.1, "steps": 1, "seconds": 1.0}
    local, shared = (
        ArmResult(**plain, epsilon=2.9998, quality=quality, epsilon_if_all_collude=cost) for cost in (None, 276.2)
    )
    assert spent_in_words(local) == "3.00" and "collude" not in local.model_dump_json()
    assert spent_in_words(shared) == "3.00 (if all others collude, practically no protection: epsilon 277)"
