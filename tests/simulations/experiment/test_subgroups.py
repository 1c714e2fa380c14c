"""Subgroups of held-out records stand beside them in order, and enter nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import SettingsError
from shared.records.ragged import load
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import held_out_groups, subgroups_of

Scenarios = Callable[..., Scenario]
UNIT = {"privacy": {"epsilon": 8.0, "sampling_rate": 0.3, "unit": "patient"}}


def data(**values: Any) -> dict[str, Any]:
    partition = {"by": "column", "column": "site"}
    return {"simulation": {"seed": 7, "data": {"source": "table.csv", "partition": partition} | values}}


def test_each_usable_held_out_record_has_its_subgroup(scenario: Scenarios, table: pd.DataFrame, tmp_path: Path) -> None:
    people = np.arange(len(table)) // 2
    rows = table.assign(patient=[f"p{n}" for n in people], sex=np.where(people % 2, "men", "women"))
    rows.loc[rows.index % 9 == 0, "label"] = "unknown"  # unusable, and so nobody's prediction
    rows.to_csv(tmp_path / "table.csv", index=False)
    one = scenario(**UNIT, **data(unit_column="patient", subgroups=["sex"]))
    prepared = prepare(one, tmp_path / "table.csv", tmp_path / "prepared")
    values, groups = subgroups_of(prepared)["sex"], held_out_groups(prepared, "patient")
    assert groups is not None
    for site in prepared.sites:
        usable = load(prepared.holdout_path(site)).usable
        assert len(values[site.name]) == usable.sum() == len(groups.of_site[site.name])
        by_person: dict[int, set[str]] = {}
        for person, sex in zip(groups.of_site[site.name].tolist(), values[site.name], strict=True):
            by_person.setdefault(person, set()).add(sex)
        assert all(len(sexes) == 1 for sexes in by_person.values())
        assert set(values[site.name]) == {"men", "women"}


def test_a_scenario_without_subgroups_is_what_it_was(scenario: Scenarios) -> None:
    assert "subgroups" not in scenario().simulation.data.model_dump()


def test_subgroups_of_single_records_are_refused(scenario: Scenarios) -> None:
    with pytest.raises(SettingsError, match=r"simulation.data.subgroups only goes with"):
        scenario(**data(subgroups=["sex"]))


@pytest.mark.parametrize(
    "task", [{"problem": "multi-label"}, {"problem": "rating", "labels": [], "rating_range": [1, 5]}]
)
def test_subgroups_are_of_answers_that_are_right_or_wrong(scenario: Scenarios, task: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="whose records have one label each"):
        scenario(**UNIT, **data(unit_column="patient", subgroups=["sex"]), task=task)
