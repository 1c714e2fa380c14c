"""Scenarios whose unit of privacy is a patient with many rows: split, sampled, clipped, counted and planned as one."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from client.vault.records.snapshot import Snapshot
from client.vault.review.node_files import open_node
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.adapted_model.model import build
from shared.base_models.locate import find
from shared.errors import DataError, SettingsError
from shared.protocol.messages import TrainTask
from shared.records.ragged import Records, load, with_units
from simulations.experiment.partition import split
from simulations.experiment.partition_kinds import ByColumn, Iid
from simulations.experiment.prepare import prepare, sizes_of
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared
from simulations.forecast import plan_file, timed
from simulations.progress import SilentProgress
from simulations.results.result import Result
from simulations.run import Run
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from simulations.sites.without_privacy import SiteWithoutPrivacy
from simulations.step_timing import StepTime
from tests.support.operators import review_study

Scenarios = Callable[..., Scenario]
BY_SITE = {"by": "column", "column": "site"}
PATIENT = {"unit": "patient", "records_per_unit": 3, "epsilon": 8.0, "sampling_rate": 0.3}
RECORD = {"epsilon": 8.0, "sampling_rate": 0.3}
EVERY_TRAINED_ARM = ("single-site", "textbook", "federated", "pooled", "head-without-privacy", "without-privacy")


@pytest.fixture(scope="module")
def patients(request: pytest.FixtureRequest) -> pd.DataFrame:
    """Three sites of 40 patients with one to five rows, and a few rows of nobody."""
    table = request.getfixturevalue("table")
    numbers = np.random.default_rng(3).integers(0, 40, len(table))
    names = [f"{site} {number}" for site, number in zip(table.site, numbers, strict=True)]
    return table.assign(patient_id=["  " if place % 60 == 0 else name for place, name in enumerate(names)])


@pytest.fixture
def by_patient(scenario: Scenarios) -> Scenarios:
    def make(partition: dict[str, Any] = BY_SITE, **data: Any) -> Scenario:
        data = {"source": "table.csv", "partition": partition, "unit_column": "patient_id", **data}
        return scenario(privacy=PATIENT, simulation={"data": data, "arms": ["federated"]})

    return make


def prepared_in(folder: Path, scenario: Scenario, table: pd.DataFrame) -> Prepared:
    table.to_csv(folder / "table.csv", index=False)
    return prepare(scenario, folder / "table.csv", folder / "prepared")


def node_snapshot(folder: Path, scenario: Scenario, rows: pd.DataFrame, policy: dict[str, Any]) -> Snapshot:
    """The same rows as a real node of the same key would train on."""
    rows.to_csv(folder / "rows.csv", index=False)
    fingerprint = find(scenario.model).fingerprint
    policy = {"epsilon": 9.0, "delta": 1e-5, "declared_size": 50, "models": [fingerprint], "holdout": 0.2} | policy
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in policy.items())
    (folder / "node.toml").write_text(
        f'[node]\nmodels = "{Path(scenario.model.source).parent}"\n[datasets.ward]\nsource = "rows.csv"\n{lines}\n'
    )
    key = open_node(folder / "node.toml").folders.records[1]
    key.parent.mkdir(parents=True)
    key.write_bytes(hashlib.sha256(f"fedvault simulation roles {scenario.simulation.seed}".encode()).digest())
    study = scenario.as_study().model_dump()
    study["model"] |= {"fingerprint": fingerprint}
    return review_study(folder / "node.toml", type(scenario.as_study()).model_validate(study)).snapshot


def assert_same(ours: Records, theirs: Records) -> None:
    names = sorted(ours.fields)
    assert names == sorted(theirs.fields) and ours.digest(names) == theirs.digest(names)
    np.testing.assert_array_equal(ours.usable, theirs.usable)
    assert (ours.units is None) == (theirs.units is None)
    if ours.units is not None and theirs.units is not None:
        np.testing.assert_array_equal(ours.units, theirs.units)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_site_trains_on_what_a_node_with_its_table_and_key_trains_on(
    tmp_path: Path, scenario: Scenarios, by_patient: Scenarios, patients: pd.DataFrame, unit: str
) -> None:
    declared = by_patient() if unit == "patient" else scenario(simulation={"arms": ["federated"]})
    policy = {"unit": "patient", "unit_column": "patient_id"} if unit == "patient" else {}
    found = prepared_in(tmp_path, declared, patients)
    north = next(site for site in found.sites if site.name == "north")
    theirs = node_snapshot(tmp_path, declared, patients[patients.site == "north"], policy)
    assert_same(load(found.train_path(north)), theirs.train)
    assert_same(load(found.holdout_path(north)), theirs.holdout)
    facts = theirs.facts
    assert (north.rows, north.train, north.unit_count) == (facts.rows, facts.train, facts.units)
    assert (north.holdout, north.dropped, north.unusable) == (facts.holdout, facts.dropped, facts.unusable)


def test_a_site_keeps_patients_together_and_declares_how_many_it_has(
    tmp_path: Path, by_patient: Scenarios, patients: pd.DataFrame
) -> None:
    found = prepared_in(tmp_path, by_patient(used=0.8), patients)
    for site in found.sites:
        train = load(found.train_path(site))
        assert train.units is not None and np.bincount(train.units).max() == 3
        assert site.units == site.declared_size == train.unit_count < site.train == len(train)
        assert site.train + site.holdout + site.dropped == site.rows == 120
    assert "6 rows name no patient and were left out." in found.warnings
    assert not any("name no site" in warning for warning in found.warnings)


def test_units_that_are_dealt_out_stay_whole(patients: pd.DataFrame) -> None:
    parts = split(patients, Iid(by="iid", sites=4), label_column=None, unit_column="patient_id", seed=1)
    owners = [set(part.patient_id) - {"  "} for part in parts.values()]
    assert len(parts) == 4 and max(map(len, owners)) - min(map(len, owners)) <= 1
    assert sum(map(len, owners)) == len(set.union(*owners)) and sum(map(len, parts.values())) == len(patients)
    again = split(patients, Iid(by="iid", sites=4), label_column=None, unit_column="patient_id", seed=2)
    assert [*again] == [*parts] and not again["site-0"].equals(parts["site-0"])
    with pytest.raises(DataError, match="Expected at most 37 sites for 37 units, got sites=38"):
        split(patients[:120], Iid(by="iid", sites=38), label_column=None, unit_column="patient_id", seed=1)


def test_a_patient_with_rows_at_two_sites_is_a_unit_of_each(patients: pd.DataFrame) -> None:
    shared = patients.assign(patient_id="one")
    parts = split(shared, ByColumn(by="column", column="site"), label_column=None, unit_column="patient_id", seed=1)
    assert {name: len(part) for name, part in parts.items()} == {"east": 120, "north": 120, "south": 120}


def test_too_few_patients_are_counted_as_such(tmp_path: Path, by_patient: Scenarios, patients: pd.DataFrame) -> None:
    with pytest.raises(DataError) as refused:
        prepared_in(tmp_path, by_patient(), patients.assign(patient_id=patients.site))
    assert "training patients, federation.smallest_declared_size=20" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("privacy", "data", "words"),
    [
        (PATIENT, {}, "simulation.data.unit_column is needed with privacy.unit = 'patient'"),
        (RECORD, {"unit_column": "patient_id"}, "unit_column only goes with a privacy.unit other than 'record'"),
        (
            PATIENT,
            {"unit_column": "patient_id", "partition": {"by": "dirichlet", "sites": 3}},
            "'dirichlet' deals out single rows, which would part the rows of one patient: use 'column' or 'iid'",
        ),
    ],
)
def test_a_unit_without_its_column_or_whole_rows_is_refused(
    scenario: Scenarios, privacy: dict[str, Any], data: dict[str, Any], words: str
) -> None:
    data = {"source": "table.csv", "partition": BY_SITE, **data}
    with pytest.raises(SettingsError, match=words):
        scenario(privacy=privacy, simulation={"data": data})


def test_a_unit_column_that_the_table_lacks_is_named(
    tmp_path: Path, by_patient: Scenarios, patients: pd.DataFrame
) -> None:
    with pytest.raises(DataError, match="Expected a column 'patient'"):
        prepared_in(tmp_path, by_patient(unit_column="patient"), patients)


def test_a_plan_counts_patients_and_times_their_records(
    tmp_path: Path,
    by_patient: Scenarios,
    patients: pd.DataFrame,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared = by_patient()
    sites = prepared_in(tmp_path, declared, patients).sites
    by_site = {site.name: (site.train, site.units) for site in sites}
    assert sizes_of(declared, tmp_path / "table.csv") == by_site
    (tmp_path / "mine.toml").write_text(SCENARIO.format(model=tiny_bert))
    found = plan_file(tmp_path / "mine.toml", None, [], epsilon_limit=None, spent_steps=0)
    assert found.forecast.unit == "patient"
    assert {node.name: node.declared_size for node in found.forecast.nodes} == {s.name: s.units for s in sites}
    assert found.records_per_unit == {name: records / units for name, (records, units) in by_site.items() if units}
    monkeypatch.setattr("simulations.forecast.time_step", lambda *_, **__: StepTime(0.0, 60.0, 60.0))
    minutes = timed(found.study, found.forecast, found.records_per_unit, None)
    for site in sites:
        assert minutes[site.name]["min_once"] == pytest.approx(site.train)
        assert minutes[site.name]["min_per_round"] == pytest.approx(0.3 * 2 * site.train)


SCENARIO = """
[study]
name = "by patient"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[privacy]
unit = "patient"
records_per_unit = 3
epsilon = 8.0
sampling_rate = 0.3
[training]
local_steps = 2
[federation]
smallest_declared_size = 20
[simulation]
seed = 7
[simulation.data]
source = "table.csv"
unit_column = "patient_id"
partition = {{ by = "column", column = "site" }}
"""


def run_of(folder: Path, scenario: Scenario, table: pd.DataFrame) -> Result:
    folder.mkdir(parents=True)
    table.to_csv(folder / "table.csv", index=False)
    run = Run(scenario, folder / "table.csv", folder / "run", SilentProgress())
    run.open(resume=False)
    return run.execute()


def arms_of(scenario: Scenario, arms: Sequence[str]) -> Scenario:
    declared = scenario.model_dump()
    declared["simulation"] |= {"arms": arms}
    declared["federation"] |= {"rounds": 2}
    return Scenario.model_validate(declared)


@pytest.mark.integration
def test_every_arm_trains_on_patients_and_the_result_counts_them(
    tmp_path: Path, by_patient: Scenarios, patients: pd.DataFrame
) -> None:
    result = run_of(tmp_path / "units", arms_of(by_patient(), EVERY_TRAINED_ARM), patients)
    assert [name.partition(":")[0] for name in result.arms] == list(EVERY_TRAINED_ARM)
    units = {name: data.units for name, data in result.data.items()}
    for name, arm in result.arms.items():
        expected = max(units.values()) if name.startswith("single-site:") else sum(units.values())
        assert arm.units == pytest.approx(expected, abs=10) and arm.rows > arm.units
    assert {(spent.unit, spent.declared_size) for spent in result.privacy.values()} == {
        ("patient", count) for count in units.values()
    }
    assert all(entry.accepted == 3 for entry in result.rounds)
    evaluated = sum(data.evaluated or 0 for data in result.data.values())
    assert all(one.unit == "patient" and 1 < one.units < evaluated for one in result.differences.values())


def test_without_privacy_a_unit_weighs_as_much_as_a_record(make_study: Any, make_records: Any) -> None:
    """A unit's gradient is the mean over its records, so a patient who was written down twice moves nothing."""
    study = make_study(privacy={"unit": "patient", "sampling_rate": 0.5}, training={"local_steps": 2})
    once = make_records(12)
    twice = once.select(np.repeat(np.arange(12), 2))
    updates = []
    for records, units in ((once, np.arange(12)), (twice, np.repeat(np.arange(12), 2))):
        model = build(study)
        activations = FrozenActivations(model, with_units(records, units), torch.device("cpu"))
        site = SiteWithoutPrivacy(
            study,
            model,
            activations,
            declared_size=12,
            randomness=lambda number: SeededRandomnessForSimulation(0, "arm", "site", number),
        )
        start = (0.2 * np.random.default_rng(5).standard_normal(model.layout.length)).astype(np.float32)
        updates.append(site.train(TrainTask(study.sha256, "run", 1, start)).update)
    assert np.abs(updates[0]).max() > 1e-3
    np.testing.assert_allclose(updates[1], updates[0], atol=1e-5 * np.abs(updates[0]).max())
