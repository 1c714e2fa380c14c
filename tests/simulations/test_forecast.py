"""Plans of scenarios: sizes from the data, minutes from real steps, and prospects that simulations bear out."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import SettingsError
from shared.privacy.signal_to_noise import Prospect
from shared.study.declaration import Study
from simulations.cli import main
from simulations.experiment.prepare import prepare, sizes_of
from simulations.experiment.scenario import Scenario, data_path, load
from simulations.forecast import plan_file
from simulations.progress import SilentProgress
from simulations.run import Run
from simulations.step_timing import FirstRecords, StepTime, time_step
from tests.support.paths import ROOT

SCENARIO = ROOT / "simulations" / "scenarios" / "digits.toml"
MINE = """
[study]
name = "mine"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[federation]
smallest_declared_size = 20
"""
DATA = '[simulation.data]\nsource = "table.csv"\npartition = { by = "column", column = "site" }\n'


@pytest.fixture
def mine(tmp_path: Path, tiny_bert: Path, table: pd.DataFrame) -> Path:
    table.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "mine.toml").write_text(MINE.format(model=tiny_bert) + DATA)
    return tmp_path / "mine.toml"


def test_sizes_from_the_data_are_those_that_a_run_trains_on(
    scenario: Callable[..., Scenario], table: pd.DataFrame, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "table.csv", index=False)
    prepared = prepare(scenario(), tmp_path / "table.csv", tmp_path)
    assert sizes_of(scenario(), tmp_path / "table.csv") == {
        site.name: (site.train, site.train) for site in prepared.sites
    }


def test_a_scenario_brings_its_sizes_and_typed_ones_go_first(mine: Path) -> None:
    options: dict[str, Any] = {"epsilon_limit": None, "spent_steps": 0}
    found = plan_file(mine, None, [], **options)
    assert sorted(node.name for node in found.forecast.nodes) == ["east", "north", "south"]
    typed = plan_file(mine, "3700,4200", ["privacy.epsilon=1"], **options)
    assert [node.declared_size for node in typed.forecast.nodes] == [3700, 4200] and typed.study.privacy.epsilon == 1


def test_a_bare_study_needs_sizes(mine: Path) -> None:
    mine.write_text(mine.read_text().removesuffix(DATA))
    with pytest.raises(SettingsError, match="--sizes"):
        plan_file(mine, None, [], epsilon_limit=None, spent_steps=0)


SHARED = {
    "federation": {"secure_sum": "shared", "typical_size": 90},
    "training": {"local_steps": 1},
}


@pytest.mark.parametrize("changes", [{}, {"privacy": {"unit": "patient"}}, {"adapter": {"layers": "all"}}, SHARED])
def test_a_real_step_is_measured_whatever_the_unit_the_cut_and_the_noise(
    make_study: Callable[..., Study], changes: dict[str, Any]
) -> None:
    found = time_step(make_study(**changes))
    assert found.minutes(steps=10, batch=50) > found.minutes(steps=1, batch=50) > 0
    assert (found.frozen_layers_s == 0) == (changes.get("adapter") is not None)


def test_minutes_are_steps_times_a_straight_line() -> None:
    measured = StepTime(step_s=0.5, record_s=0.1, frozen_layers_s=0.2)
    assert measured.minutes(steps=12, batch=25.0) == pytest.approx(0.6)
    assert measured.minutes_before(records=30) == pytest.approx(0.1)


def test_timing_draws_a_batch_of_one_size_and_fresh_noise() -> None:
    source = FirstRecords(3)
    assert source.step().poisson_batch(40, 0.5).tolist() == [0, 1, 2]
    assert not np.array_equal(source.step().discrete_gaussian(4, 100.0), source.step().discrete_gaussian(4, 100.0))


def test_the_command_prints_a_plan_and_the_same_as_json(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fedvault-sim", "plan", str(mine), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    found = json.loads(plan("--json", "--set", "privacy.epsilon=0.02"))
    assert (
        found["prospect"] == "nothing" and found["verdict"].startswith("This will not learn") and found["suggestions"]
    )
    assert set(found["minutes"]) == {"east", "north", "south"}
    assert "This will not learn" in plan("--no-timing", "--set", "privacy.epsilon=0.02")
    assert "fedvault-sim plan" in plan("--help")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected", "learns"),
    [
        ([], Prospect.ENOUGH, True),
        (["privacy.epsilon=0.1"], Prospect.NOTHING, False),
        (
            ["simulation.data.used=0.06", "federation.smallest_declared_size=5"],
            Prospect.NOTHING,
            False,
        ),
    ],
)
def test_what_is_said_of_digits_is_what_comes_of_them(
    tmp_path: Path, not_here: Any, changes: list[str], expected: Prospect, learns: bool
) -> None:
    scenario = load(SCENARIO, [*changes, 'simulation.arms=["federated"]', "simulation.evaluate_every=8"])
    try:
        source = data_path(scenario, SCENARIO)
        planned = plan_file(SCENARIO, None, changes, epsilon_limit=None, spent_steps=0).forecast
    except SettingsError as missing:
        not_here(str(missing))
    assert planned.prospect is expected
    run = Run(scenario, source, tmp_path / "run", SilentProgress())
    run.open(resume=False)
    # ten digits: guessing gives 0.1
    assert (run.execute().final.value > 0.6) == learns
