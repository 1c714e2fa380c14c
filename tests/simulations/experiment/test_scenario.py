"""Scenario files, and changes on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shared.errors import SettingsError
from simulations.experiment.arms import changed, trained_arms
from simulations.experiment.scenario import ARMS, Scenario, data_path, load, read_changed
from simulations.experiment.sites import Site
from tests.support.paths import ROOT

SCENARIOS = ROOT / "simulations" / "scenarios"

STRANGERS = """
[study]
name = "my-study"
[model]
source = "bundled:minilm"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 48
[adapter]
rank = 8
[privacy]
epsilon = 3.0
delta = 1e-5
unit = "record"
[training]
local_steps = 10
[federation]
rounds = 8
[simulation]
seed = 7
[simulation.data]
source = "data.csv"
columns = { text = "review", label = "stars" }
partition = { by = "column", column = "site" }
holdout = 0.2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(STRANGERS)
    return tmp_path / "mine.toml"


def test_a_strangers_scenario_loads_with_good_defaults(file: Path) -> None:
    found = load(file)
    assert found.as_study().total_steps == 80 and found.simulation.engine == "local"
    assert found.as_study().sha256 == load(file, ["simulation.seed=8"]).as_study().sha256


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("privacy.epsilon=1", 1.0),
        ("study.name=two words", "two words"),
        ('task.labels=["a","b"]', ("a", "b")),
        ("simulation.data.used=0.5", 0.5),
        ("performance.activation_cache=false", False),
    ],
)
def test_one_value_is_changed(file: Path, change: str, value: Any) -> None:
    found: Any = load(file, [change])
    for part in change.partition("=")[0].split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("privacy.epsilon", "section.key=value"),
        ("epsilon=1", "section.key=value"),
        ("privacy.epsilon=-1", "privacy.epsilon"),
        ("privacy.epsilon=nan", "privacy.epsilon"),
        ("privacy.epsilom=1", "privacy.epsilom: no such key"),
        ("study.name.x=1", "section at 'name'"),
        ("simulation.arms=['none']", "arms are some of"),
        ("simulation.data.partition={by='nothing'}", "partition"),
    ],
)
def test_what_cannot_be_is_said_with_the_keys_path(file: Path, change: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(file, [change])


def test_data_is_found_beside_the_scenario_or_said_to_be_missing(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.csv"):
        data_path(load(file), file)
    (file.parent / "data.csv").touch()
    assert data_path(load(file), file) == file.parent / "data.csv"
    with pytest.raises(SettingsError) as raised:
        data_path(load(file, ["simulation.data.source=dataset:nothing"]), file)
    assert "fedvault-sim data fetch nothing. " in raised.value.hint and "FEDVAULT_DATA" in raised.value.hint


SITES = tuple(Site(i, name, 100, size, 20, 0, 0, size) for i, (name, size) in enumerate([("a", 60), ("b", 80)]))


def test_arms_spend_the_same_epsilon_and_only_the_reference_is_unprotected(scenario: Callable[..., Scenario]) -> None:
    arms = {arm.name: arm for arm in trained_arms(scenario(), SITES)}
    assert list(arms) == ["head-federated", "single-site:b", "federated", "without-privacy"]
    assert [name for name, arm in arms.items() if not arm.protected] == ["without-privacy"]
    assert len({arm.study.privacy for arm in arms.values()}) == len({a.study.total_steps for a in arms.values()}) == 1
    assert arms["federated"].study == scenario().as_study()


def test_references_have_three_times_the_studys_rates_or_unclipped_ones_of_their_own(
    scenario: Callable[..., Scenario],
) -> None:
    def rates(**changes: object) -> list[tuple[str, float, float]]:
        declared = scenario().model_dump()
        declared["simulation"] |= {"arms": ["federated", "head-without-privacy", "without-privacy"], **changes}
        arms = trained_arms(Scenario.model_validate(declared), SITES)[1:]
        return [(a.name, a.study.training.learning_rate, a.study.training.adapter_learning_rate) for a in arms]

    own = scenario().training
    assert {rates_of_one[1:] for rates_of_one in rates()} == {(3 * own.learning_rate, 3 * own.adapter_learning_rate)}
    as_they_are = rates(noiseless_factor=1.0)
    assert {one[1:] for one in as_they_are} == {(own.learning_rate, own.adapter_learning_rate)}
    assert "noiseless_factor" not in scenario().simulation.model_dump()
    with pytest.raises(ValidationError, match=r"only go with simulation\.reference = 'unclipped'"):
        rates(reference_learning_rate=2.0)
    with pytest.raises(ValidationError, match=r"noiseless_factor only goes with simulation\.reference = 'noiseless'"):
        rates(reference="unclipped", noiseless_factor=2.0)
    assert rates(reference="unclipped")[1] == ("without-privacy", 4.0, 4.0)
    both = {"reference": "unclipped", "reference_learning_rate": 2.0, "reference_adapter_learning_rate": 8.0}
    assert rates(**both) == [("head-without-privacy", 2.0, 8.0), ("without-privacy", 2.0, 8.0)]
    alone = rates(**both, reference_head_alone_learning_rate=64.0)
    assert alone == [("head-without-privacy", 64.0, 8.0), ("without-privacy", 2.0, 8.0)]


def test_the_largest_sites_arm_says_so(scenario: Callable[..., Scenario]) -> None:
    declared = scenario(simulation={"arms": ["single-site", "federated"], "single_site": "every"})
    assert [arm.title for arm in trained_arms(declared, SITES)] == ["a alone", "b alone (largest)", "federated"]


def test_which_site_the_single_site_arm_takes(scenario: Callable[..., Scenario]) -> None:
    def alone(which: str) -> list[str]:
        declared = scenario().model_dump()
        declared["simulation"] |= {"single_site": which, "arms": ["single-site", "federated"]}
        return [arm.name for arm in trained_arms(Scenario.model_validate(declared), SITES)]

    assert alone("every") == ["single-site:a", "single-site:b", "federated"]
    assert alone("a") == ["single-site:a", "federated"]
    assert alone("largest") == ["single-site:b", "federated"]
    with pytest.raises(SettingsError, match="'largest', 'every' or one of a, b"):
        alone("c")


def test_a_site_alone_may_have_rates_of_its_own_and_every_other_arm_keeps_the_studys(
    scenario: Callable[..., Scenario],
) -> None:
    declared = scenario().model_dump()
    assert not any(name.startswith("single_site_") for name in declared["simulation"])
    before = {arm.name: arm.study for arm in trained_arms(scenario(), SITES)}
    declared["simulation"] |= {"single_site_learning_rate": 3.5, "single_site_adapter_learning_rate": 0.25}
    after = {arm.name: arm.study for arm in trained_arms(Scenario.model_validate(declared), SITES)}
    single = after.pop("single-site:b").training
    assert (single.learning_rate, single.adapter_learning_rate) == (3.5, 0.25)
    assert after == {name: study for name, study in before.items() if name != "single-site:b"}


def test_random_streams_keep_their_names_so_that_figures_stay(scenario: Callable[..., Scenario]) -> None:
    declared = scenario(simulation={"arms": [name for name in ARMS if name not in ("majority", "untrained-head")]})
    assert {arm.name: arm.random_stream for arm in trained_arms(declared, SITES)} == {
        "head-federated": "federated",
        "single-site:b": "site-alone:b",
        "textbook": "textbook",
        "federated": "federated",
        "pooled": "central",
        "head-without-privacy": "without-privacy",
        "without-privacy": "without-privacy",
    }


def test_a_changed_study_is_validated(scenario: Callable[..., Scenario]) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        changed(scenario().as_study(), privacy={"epsilon": -1})


def test_the_models_folder_is_found_beside_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios = tmp_path / "scenarios"
    for folder in (scenarios, tmp_path / "models" / "bert", tmp_path / "other"):
        folder.mkdir(parents=True)
    (scenarios / "s.toml").write_text('[model]\nsource = "../models/bert"\n')
    monkeypatch.chdir(tmp_path / "other")  # ../models/bert is the same folder from here: its spelling stays
    assert read_changed(scenarios / "s.toml")["model"]["source"] == "../models/bert"
    monkeypatch.chdir(tmp_path / "models" / "bert")
    assert read_changed(scenarios / "s.toml")["model"]["source"] == str(scenarios / "../models/bert")
    assert read_changed(scenarios / "s.toml", ["model.source=bundled:minilm"])["model"]["source"] == "bundled:minilm"


def test_paths_are_relative_to_the_file_that_names_them_and_typed_ones_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    here = tmp_path / "here"
    (here / "base").mkdir(parents=True)
    (here / "data.csv").touch()
    monkeypatch.chdir(here)
    with pytest.raises(SettingsError) as raised:
        data_path(load(file), file)
    assert "It is in the current folder" in str(raised.value.hint)
    typed = load(file, ["simulation.data.source=data.csv"])
    assert data_path(typed, file).samefile(here / "data.csv")
    elsewhere = file.with_name("s.toml")
    elsewhere.write_text('[model]\nsource = "base"\n')
    with pytest.raises(SettingsError, match=r"relative to the file that names it, got 'base'"):
        read_changed(elsewhere)
    assert read_changed(elsewhere, ["model.source=base"])["model"]["source"] == "base"
    (elsewhere.parent / "base").mkdir()
    assert Path(read_changed(elsewhere)["model"]["source"]).samefile(elsewhere.parent / "base")
    hub = ['model.source="org/name"', 'model.revision="abc"']
    assert read_changed(elsewhere, hub)["model"]["source"] == "org/name"


def test_every_shipped_scenario_names_what_fetch_brings_wherever_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for path in [*SCENARIOS.glob("*.toml"), *(ROOT / "simulations/benchmarks/quality").glob("*.toml")]:
        spelled = path.relative_to(ROOT)
        source = read_changed(spelled)["model"]["source"]
        assert source.startswith(("bundled:", "data/models/")), "studies are known by this spelling"
    monkeypatch.chdir(tmp_path)
    digits = Path(read_changed(SCENARIOS / "digits.toml")["model"]["source"])
    assert digits.resolve() == ROOT / "data/models/small-vit"
