"""MiniLM on real rows: the main job, small enough for every run of the tests."""

from pathlib import Path

import pytest

from simulations.experiment.scenario import data_path, load
from simulations.progress import SilentProgress
from simulations.run import Run
from tests.support.paths import ROOT

VADER = ROOT / "simulations" / "scenarios" / "vader.toml"


@pytest.mark.integration
def test_private_federated_lora_of_minilm_beats_the_majority_by_ten_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    arms = 'simulation.arms=["majority","untrained-head","federated"]'
    scenario = load(VADER, ["simulation.data.used=0.25", "federation.rounds=5", arms])
    run = Run(scenario, data_path(scenario, VADER), tmp_path / "run", SilentProgress())
    run.open(resume=False)
    result = run.execute()
    assert result.final.value >= result.baselines["majority"].quality.value + 0.10
    assert result.final.value > result.baselines["untrained-head"].quality.value
    assert all(0 < spent.epsilon_rdp <= scenario.privacy.epsilon for spent in result.privacy.values())
    assert all(entry.accepted == 4 for entry in result.rounds)
