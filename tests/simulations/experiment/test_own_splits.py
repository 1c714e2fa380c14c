"""Splits that the data themselves declare: a column, own files, one test table for the global adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shared.errors import DataError, SettingsError
from shared.records.ragged import load
from simulations.api import load_scenario, run
from simulations.experiment.prepare import prepare, sizes_of
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import GLOBAL_TEST, Prepared, reopen

Scenarios = Callable[..., Scenario]
BY_SITE = {"by": "column", "column": "site"}


@pytest.fixture
def marked(table: pd.DataFrame) -> pd.DataFrame:
    """Of ten rows of each site, seven to train on, one for validation and two for testing."""
    return table.assign(split=(["Train"] * 7 + ["val"] + ["TEST "] * 2) * 36)


@pytest.fixture
def prepared(tmp_path: Path, scenario: Scenarios) -> Callable[..., Prepared]:
    def make(rows: pd.DataFrame, **data: Any) -> Prepared:
        rows.to_csv(tmp_path / "table.csv", index=False)
        declared = scenario(simulation={"data": {"source": "table.csv", "partition": BY_SITE, **data}})
        return prepare(declared, tmp_path / "table.csv", tmp_path)

    return make


def test_a_column_says_what_each_row_is_for(prepared: Callable[..., Prepared], marked: pd.DataFrame) -> None:
    made = prepared(marked, split_column="split")
    assert [(site.train, site.holdout, site.dropped) for site in made.sites] == [(84, 24, 12)] * 3
    chosen = prepared(marked, split_column="split", evaluate="validation")
    assert [(site.train, site.holdout, site.dropped) for site in chosen.sites] == [(84, 12, 24)] * 3


def test_without_validation_rows_a_share_of_the_training_rows_is_taken(
    prepared: Callable[..., Prepared], marked: pd.DataFrame
) -> None:
    rows = marked[marked.split != "val"].reset_index(drop=True)
    made = prepared(rows, split_column="split", evaluate="validation")
    for site in made.sites:
        assert site.train + site.holdout == 84 and 5 <= site.holdout <= 30 and site.dropped == 24


def test_files_of_their_own_are_read_after_the_table(
    prepared: Callable[..., Prepared], marked: pd.DataFrame, tmp_path: Path
) -> None:
    by_column = prepared(marked, split_column="split")
    trained = [load(by_column.train_path(site))["ids"][0].tobytes() for site in by_column.sites]
    for name, mark in (("test.csv", "TEST "), ("val.csv", "val")):
        marked[marked.split == mark].drop(columns="split").to_csv(tmp_path / name, index=False)
    rows = marked[marked.split == "Train"].drop(columns="split")
    by_file = prepared(rows, test="test.csv", validation="val.csv")
    assert [(site.train, site.holdout) for site in by_file.sites] == [(84, 24)] * 3
    assert [load(by_file.train_path(site))["ids"][0].tobytes() for site in by_file.sites] == trained


@pytest.mark.parametrize("own", [{}, {"global_test": True}])
def test_rows_of_a_test_file_are_named_by_their_number_in_it(
    prepared: Callable[..., Prepared], marked: pd.DataFrame, tmp_path: Path, own: dict[str, Any]
) -> None:
    held_out = marked[marked.split == "TEST "].head(30).reset_index(drop=True)
    held_out.loc[4, "label"] = "maybe"
    held_out.to_csv(tmp_path / "test.csv", index=False)
    marked.tail(20).to_csv(tmp_path / "val.csv", index=False)
    made = prepared(marked[marked.split == "Train"], test="test.csv", validation="val.csv", **own)
    (note,) = [warning for warning in made.warnings if "held-out records unusable" in warning]
    assert "; row 5 of test.csv: " in note


def test_the_partition_of_a_run_with_a_global_test_is_read_again(
    prepared: Callable[..., Prepared], marked: pd.DataFrame, tmp_path: Path
) -> None:
    own = {"split_column": "split", "global_test": True}
    first = [site.train for site in prepared(marked, **own).sites]
    written = (tmp_path / "partition.csv").read_text()
    again = prepared(marked, **own, partition={"by": "file", "file": "partition.csv"})
    assert [site.train for site in again.sites] == first
    assert (tmp_path / "partition.csv").read_text() == written


def test_one_test_table_belongs_to_no_site_and_needs_no_site_column(
    prepared: Callable[..., Prepared], marked: pd.DataFrame, tmp_path: Path, scenario: Scenarios
) -> None:
    marked[marked.split == "TEST "].drop(columns=["split", "site"]).to_csv(tmp_path / "test.csv", index=False)
    made = prepared(marked[marked.split == "Train"], test="test.csv", global_test=True)
    assert [(site.rows, site.train, site.holdout) for site in made.sites] == [(84, 84, 0)] * 3
    assert made.tested is not None and (made.tested.name, made.tested.holdout) == (GLOBAL_TEST, 72)
    assert made.evaluated == (made.tested,) and len(load(made.holdout_path(made.tested))) == 72
    assert reopen(made.folder) == made
    assert not any("no usable record is held out" in warning for warning in made.warnings)


def test_settings_are_never_chosen_on_the_test_table(prepared: Callable[..., Prepared], marked: pd.DataFrame) -> None:
    own = {"split_column": "split", "global_test": True, "evaluate": "validation"}
    by_validation = prepared(marked, **own)
    assert by_validation.tested is not None and by_validation.tested.holdout == 36
    without = prepared(marked[marked.split != "val"], **own)
    assert without.tested is None and all(site.holdout > 0 and site.dropped == 24 for site in without.sites)


def test_rows_that_are_trained_on_and_tested_are_counted(
    prepared: Callable[..., Prepared], marked: pd.DataFrame, tmp_path: Path
) -> None:
    marked.head(5).to_csv(tmp_path / "test.csv", index=False)
    made = prepared(marked, test="test.csv", global_test=True)
    assert any("5 of 5 test rows have the content" in warning for warning in made.warnings)


def test_a_person_on_both_sides_is_told(tmp_path: Path, scenario: Scenarios, marked: pd.DataFrame) -> None:
    marked.assign(person=[f"p{row // 10}" for row in range(len(marked))]).to_csv(tmp_path / "table.csv", index=False)
    data = {"source": "table.csv", "partition": BY_SITE, "split_column": "split", "unit_column": "person"}
    unit = {"epsilon": 8.0, "sampling_rate": 0.3, "unit": "person", "records_per_unit": 9}
    few = {"rounds": 3, "smallest_declared_size": 5}
    declared = scenario(simulation={"data": data}, privacy=unit, federation=few)
    made = prepare(declared, tmp_path / "table.csv", tmp_path)
    assert any("36 persons have rows on both sides" in warning for warning in made.warnings)
    sizes = sizes_of(declared, tmp_path / "table.csv")
    assert {name: size.units for name, size in sizes.items()} == {site.name: site.unit_count for site in made.sites}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"split_column": "split", "test": "test.csv"}, "either a split_column"),
        ({"split_column": "split", "split_by": "site"}, "split_by does not go"),
        ({"global_test": True}, "global_test needs"),
    ],
)
def test_declarations_that_exclude_each_other_are_refused(scenario: Scenarios, data: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        scenario(simulation={"data": {"source": "table.csv", "partition": BY_SITE, **data}})


def test_what_is_no_split_is_said(prepared: Callable[..., Prepared], marked: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'train', 'validation' or 'test' in column 'label', got"):
        prepared(marked, split_column="label")
    with pytest.raises(DataError, match="got none marked 'test'"):
        prepared(marked[marked.split == "Train"], split_column="split")
    for key in ("test", "validation"):
        with pytest.raises(DataError, match=rf"simulation\.data\.{key} to be a file, got 'absent\.csv'") as refused:
            prepared(marked, **{key: "absent.csv"})
        assert refused.value.hint.startswith(f"Looked in {tmp_path}")


def test_a_run_over_one_test_table_speaks_of_it_alone(tmp_path: Path, tiny_bert: Path, marked: pd.DataFrame) -> None:
    marked[marked.split != "val"].to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "mine.toml").write_text(f"""
[study]
name = "mine"
[model]
source = "{tiny_bert}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[adapter]
layers = "last:1"
[federation]
rounds = 1
smallest_declared_size = 20
[simulation]
processes = 1
arms = ["majority", "federated"]
[simulation.data]
source = "table.csv"
split_column = "split"
global_test = true
partition = {{ by = "pathological", sites = 3, labels_per_site = 2 }}
""")
    result = run(load_scenario(tmp_path / "mine.toml"), out=tmp_path / "run")
    assert set(result.figures.final.per_site) == {GLOBAL_TEST}
    assert result.figures.data[GLOBAL_TEST].evaluated == 72 and result.figures.data[GLOBAL_TEST].train == 0
    assert len(result.privacy) == 3 and result.figures.differences["majority"].units == 72
    assert (tmp_path / "run" / "report.html").exists()
    assert not [warning for warning in result.figures.warnings if "could not be made" in warning]
    assert "by a few labels each. What the data name for testing" in (tmp_path / "run/adapter/README.md").read_text()
    first = (tmp_path / "run" / "prepared" / "partition.csv").read_text().splitlines()
    assert first[0] == "row,site" and len(first) == 253
    from rich.console import Console

    from simulations.results.tables import render

    render(result.figures, Console(width=100))
