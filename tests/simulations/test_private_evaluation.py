"""Simulated sites release the counts that nodes would, and what is estimated from them holds the truth."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.private_evaluation.cells import Cells
from shared.private_evaluation.estimates import Evaluated
from shared.private_evaluation.noise import sigma
from simulations.engines import worker
from simulations.experiment.arms import arm_folder, read_arm, trained_arms, write_arm
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Site, reopen
from simulations.progress import SilentProgress
from simulations.results.report import report_of
from simulations.results.result import Result
from simulations.run import Run

pytestmark = pytest.mark.integration
ROUNDS = 10


def declared(make: Callable[..., Scenario], **sections: Any) -> Scenario:
    usual: dict[str, Any] = {
        "adapter": {"layers": "last:1"},
        "training": {"local_steps": 1},
        "federation": {"rounds": ROUNDS},
        "evaluation": {
            "epsilon": 8.0,
            "rounds": list(range(1, ROUNDS)),
            "cells": "confusion",
            "subgroup": {"column": "sex", "values": ["women", "men"]},
        },
        "simulation": {
            "seed": 7,
            "arms": ("federated",),
            "processes": 1,
            "data": {"source": "table.csv", "holdout": 0.5, "partition": {"by": "column", "column": "site"}},
        },
    }
    return make(**{**usual, **sections})


def executed(scenario: Scenario, folder: Path, table: pd.DataFrame, *, resume: bool = False) -> Result:
    source = folder.parent / "table.csv"
    table.assign(sex=["women", "Men ", "unknown"] * (len(table) // 3)).to_csv(source, index=False)
    run = Run(scenario, source, folder, SilentProgress())
    run.open(resume=resume)
    return run.execute()


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Texts that differ, so that no held-out record is a copy of another."""
    generator, rows = np.random.default_rng(3), []
    for number in range(540):
        label = int(generator.integers(2))
        words = [f"word{i}" for i in generator.integers(0, 60, 8)]
        text, site = " ".join([*words, ("bad", "good")[label]]), ("north", "south", "east")[number % 3]
        rows.append((text, ("no", "yes")[label], site))
    return pd.DataFrame(rows, columns=["text", "label", "site"])


def test_ten_releases_through_real_training_hold_the_truth_and_are_read_again(
    tmp_path: Path, table: pd.DataFrame, scenario: Callable[..., Scenario]
) -> None:
    study = declared(scenario)
    result = executed(study, tmp_path / "run", table)
    assert [one.number for one in result.evaluations] == list(range(1, ROUNDS + 1))
    held = 0
    for one, trained in zip(result.evaluations, result.rounds, strict=True):
        assert one.sites == ("east", "north", "south") and one.sigma == pytest.approx(sigma(study.as_study()))
        accuracy = next(e for e in one.estimates if (e.scope, e.measure) == ("all sites", "accuracy"))
        assert trained.evaluation is not None and accuracy.low_here is not None and accuracy.high_here is not None
        held += accuracy.low_here <= trained.evaluation.metrics["accuracy"] <= accuracy.high_here
    assert held >= 8, "three or more of ten miss in one of 87 repetitions"
    last = result.evaluations[-1]
    units = {e.name: e for e in last.estimates if (e.scope, e.measure) == ("subgroup", "units")}
    assert set(units) == {"women", "men", "other"}, "in any case and spacing"
    report = report_of([result])
    assert report.further.evaluation == last
    (tmp_path / "run" / "result.json").unlink()
    again = executed(study, tmp_path / "run", table, resume=True)
    assert again.evaluations == result.evaluations, "a run that is resumed repeats none"
    assert "Measured at the sites" in (tmp_path / "run" / "adapter" / "README.md").read_text()


def test_a_simulation_ends_early_and_hands_out_the_best_by_a_servers_rule(
    tmp_path: Path, table: pd.DataFrame, scenario: Callable[..., Scenario]
) -> None:
    compared = {"epsilon": 2.0, "rounds": [1, 2], "keep": "best", "stop_after": 1}
    ends_early = declared(scenario, evaluation=compared, federation={"rounds": 4})
    result = executed(ends_early, tmp_path / "run", table.head(180))
    choice = result.choice
    assert choice is not None and len(result.rounds) < 4 and choice.ends_after(len(result.rounds))
    assert choice.compared == tuple(range(1, len(result.rounds) + 1)), "noise this large hides any improvement"
    best = next(one for one in result.rounds if one.round == choice.best)
    assert best.evaluation is not None and result.final.value == pytest.approx(best.evaluation.value)
    steps = {spent.steps for spent in result.privacy.values()}
    assert steps == {len(result.rounds)} and result.arms["federated"].steps == len(result.rounds), "what was done"
    report = report_of([result])
    assert report.run.state == "ended early" and report.further.choice == choice
    assert report.further.evaluation is not None and report.further.evaluation.number == choice.best
    assert "is rather too high" in (tmp_path / "run" / "adapter" / "README.md").read_text()


def test_simulated_sites_that_share_noise_are_evaluated_in_sums_alone(
    tmp_path: Path, table: pd.DataFrame, scenario: Callable[..., Scenario]
) -> None:
    federation = {"rounds": 1, "secure_sum": "shared", "quorum": 3, "typical_size": 90}
    declared_one = declared(scenario, federation=federation, evaluation={"epsilon": 20.0})
    result = executed(declared_one, tmp_path / "run", table)
    (one,) = result.evaluations
    assert one.sites == ("east", "north", "south") and one.one_sum is not None and one.one_sum.noise == "shared"
    # two honest ones of three have all of it
    assert one.one_sum.sigma == pytest.approx((3 / 2) ** 0.5 * sigma(declared_one.as_study()))
    assert {estimate.scope for estimate in one.estimates} == {"all sites"}
    units = next(estimate for estimate in one.estimates if estimate.measure == "units")
    held_out = sum(site.evaluated or 0 for site in result.data.values())
    assert units.low_here is not None and units.high_here is not None
    # seeded; within five deviations, also of two cells
    assert abs((units.value or 0) - held_out) < 5 * one.one_sum.sigma * 2**0.5
    assert "no number of a single site" in (tmp_path / "run" / "adapter" / "README.md").read_text()


def test_the_noise_of_an_evaluation_follows_its_own_seed(
    tmp_path: Path, table: pd.DataFrame, scenario: Callable[..., Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same adapter counted by four arms; they differ in seeds alone."""
    study, folder = declared(scenario, federation={"rounds": 1}, evaluation={"epsilon": 8.0}), tmp_path / "run"
    executed(study, folder, table.head(180))
    arm, sites = read_arm(folder, "federated"), reopen(folder / "prepared").sites
    assert arm.evaluation_noise_seed is None
    seeds = {"plain": {}, "same": {"evaluation_noise_seed": 7}, "other": {"evaluation_noise_seed": 8}}
    for name, changes in (seeds | {"training": {"noise_seed": 8}}).items():
        write_arm(replace(arm, name=name, stream="federated", **changes), folder)
    monkeypatch.setenv(worker.RUN_FOLDER, str(folder))
    counts = dict[str, list[int]]()
    for name in ("plain", "same", "other", "training"):
        for cached in (worker._arm, worker._model, worker._prepared, worker._sites):
            cached.cache_clear()
        adapter = worker._model(name).packed()
        counts[name] = worker.noisy_counts(name, sites[0].index, 1, adapter).tolist()
    assert counts["plain"] == counts["same"] == counts["training"] != counts["other"]
    for cached in (worker._arm, worker._model, worker._prepared, worker._sites):
        cached.cache_clear()


@pytest.mark.parametrize(("seeds", "evaluated"), [({}, None), ({"batches": 5}, None), ({"noise": 5}, 5)])
def test_a_seed_of_noise_is_also_that_of_evaluations(
    seeds: dict[str, int], evaluated: int | None, scenario: Callable[..., Scenario]
) -> None:
    simulation = {"seed": 7, "seeds": seeds, "arms": ("federated",), "data": {"source": "table.csv"}}
    arms = trained_arms(declared(scenario, simulation=simulation), (Site(0, "north", 90, 80, 10, 0, 0, 80),))
    assert [arm.evaluation_noise_seed for arm in arms] == [evaluated]


def test_a_study_without_an_evaluation_has_none_in_its_result(finished: dict[str, Any]) -> None:
    assert "evaluations" not in finished


@pytest.fixture
def finished(tmp_path: Path, table: pd.DataFrame, scenario: Callable[..., Scenario]) -> dict[str, Any]:
    bare = declared(scenario, evaluation={"epsilon": 8.0}, federation={"rounds": 1})
    declaration = bare.model_dump(mode="json", exclude={"evaluation"})
    result = executed(Scenario.model_validate(declaration), tmp_path / "run", table)
    folder = arm_folder(tmp_path / "run", "federated") / "evaluations"
    assert not folder.exists() and result.evaluations == []
    return dict(json.loads((tmp_path / "run" / "result.json").read_text()))


def test_cells_of_a_scenario_are_those_of_its_study(scenario: Callable[..., Scenario]) -> None:
    one = declared(scenario)
    assert Cells.of(one) == Cells.of(one.as_study()) and Evaluated.model_fields["estimates"].default == ()
