"""Real tables have holes: each one has a stated rule or one clear message, before any training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from client.vault.records.snapshot import SplitRule
from client.vault.records.splits import Split
from shared.errors import DataError
from shared.records.ragged import load
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table
from simulations.experiment import scenario as scenarios
from simulations.experiment.prepare import _check_columns, prepare
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared, Site, held_out_groups, reopen
from tests.support.paths import ROOT

Scenarios = Callable[..., Scenario]
SHIPPED = [path for path in sorted((ROOT / "simulations").glob("**/*.toml")) if "[simulation]" in path.read_text()]


@pytest.fixture
def prepared(tmp_path: Path, scenario: Scenarios) -> Callable[..., Prepared]:
    def run(table: pd.DataFrame, **sections: Any) -> Prepared:
        table.to_csv(tmp_path / "table.csv", index=False)
        return prepare(scenario(**sections), tmp_path / "table.csv", tmp_path)

    return run


def with_rows(table: pd.DataFrame, *rows: tuple[Any, Any, Any]) -> pd.DataFrame:
    return pd.concat([table, pd.DataFrame(rows, columns=["text", "label", "site"])], ignore_index=True)


def test_sites_roles_and_declared_sizes(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    found = prepared(table)
    assert [site.name for site in found.sites] == ["east", "north", "south"]
    for site in found.sites:
        assert site.train + site.holdout + site.dropped == site.rows == 120
        assert len(load(found.train_path(site))) == site.train
        assert abs(site.declared_size - site.train) <= 5
    assert reopen(found.folder) == found


def test_holes_are_counted_and_contribute_nothing(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    holes = [(f"word{i} good", label, "north") for i in range(30) for label in ("maybe", None)]
    holes += [(None, "yes", "north")]  # equal records have equal roles
    found = prepared(with_rows(table, *holes))
    north = next(site for site in found.sites if site.name == "north")
    assert north.unusable == load(found.train_path(north)).unusable > 0
    assert any("north" in warning and "unusable" in warning for warning in found.warnings)


def test_a_site_with_three_rows_and_rows_without_site_are_left_out(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    found = prepared(with_rows(table, *[("good", "yes", "tiny")] * 3, ("good", "yes", None)))
    assert "tiny" not in [site.name for site in found.sites]
    assert any("'tiny' left out: " in warning for warning in found.warnings)
    assert any("1 rows name no site" in warning for warning in found.warnings)


def test_rows_of_one_value_share_a_side_at_every_site_and_stay_records(
    prepared: Callable[..., Prepared], table: pd.DataFrame, scenario: Scenarios
) -> None:
    table["thing"] = [f"thing {i % 40}" for i in range(len(table))]
    rule = SplitRule(b"k" * 16, 0.2, split_by="thing")
    table["split"] = rule.splits(Table(task_kind(scenario().task), {}), table, list(map(str, range(len(table)))))
    assert (table.groupby("thing")["split"].nunique() == 1).all() and table["split"].nunique() == 2
    assert 0 < (table["split"] == Split.HOLDOUT).mean() < 0.5
    table.loc[table.index[:7], "thing"] = " "
    data = {"source": "table.csv", "partition": {"by": "column", "column": "site"}, "split_by": "thing"}
    found = prepared(table, simulation={"data": data})
    assert any("7 rows name no thing" in warning for warning in found.warnings)
    assert all(site.units is None for site in found.sites)
    groups = held_out_groups(found, "thing")
    assert groups is not None and groups.unit == "thing"
    for site in found.sites:
        assert len(groups.of_site[site.name]) == load(found.holdout_path(site)).usable.sum()
    by_site = [set(numbers.tolist()) for numbers in groups.of_site.values()]
    assert set.intersection(*by_site), "the same things at every site"


@pytest.mark.parametrize(("together", "used"), [(None, 1.0), ("thing", 1.0), (None, 0.6)])
def test_validation_records_come_from_the_training_ones_and_the_held_out_ones_are_not_used(
    prepared: Callable[..., Prepared], table: pd.DataFrame, together: str | None, used: float
) -> None:
    table["thing"] = [f"thing {i % 90}" for i in range(len(table))]
    data = {"source": "table.csv", "partition": {"by": "column", "column": "site"}, "used": used, "split_by": together}

    def texts(paths: Callable[[Site], Path], sites: Sequence[Site]) -> set[bytes]:
        return {load(paths(site))["ids"][i].tobytes() for site in sites for i in range(len(load(paths(site))))}

    reported = prepared(table, simulation={"data": data})
    train, test = (texts(paths, reported.sites) for paths in (reported.train_path, reported.holdout_path))
    chosen = prepared(table, simulation={"data": data | {"evaluate": "validation"}})
    within, validation = (texts(paths, chosen.sites) for paths in (chosen.train_path, chosen.holdout_path))
    assert within | validation == train and not (within & validation) and not (train & test)
    assert 0.12 * len(train) < len(validation) < 0.35 * len(train)
    assert all(site.dropped >= other.holdout for site, other in zip(chosen.sites, reported.sites, strict=True))


def test_of_many_sites_that_are_left_out_the_first_are_named(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    found = prepared(with_rows(table, *[("good", "yes", f"tiny-{number:02}") for number in range(33)]))
    named = [warning for warning in found.warnings if "left out: " in warning]
    assert len(named) == 20 and "'tiny-00'" in named[0] and "13 more sites left out." in found.warnings


def test_a_cell_of_two_megabytes_is_cut_to_the_studys_length(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    found = prepared(with_rows(table, *[("good " * 400_000, "yes", "north")] * 8))
    lengths = [load(found.train_path(site))["ids"].lengths.max() for site in found.sites]
    assert max(lengths) == 24


def test_too_few_usable_sites_is_said_with_the_reasons(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"federation.quorum=2 usable sites, got 1") as raised:
        prepared(table[table.site == "north"])
    with pytest.raises(DataError) as raised:
        prepared(with_rows(table[table.site == "north"], *[("good", "yes", "tiny")] * 3))
    assert "'tiny' left out" in str(raised.value.hint)
    with pytest.raises(DataError) as raised:
        prepared(with_rows(table[table.site == "north"], *[("good", "yes", f"tiny-{n:03}") for n in range(400)]))
    hint = str(raised.value.hint)
    assert hint.count("' left out: ") == 3 and "'tiny-002'" in hint and hint.endswith(" 397 more sites left out.")


def test_labels_that_the_study_does_not_know(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"Expected labels .*got '0', '1'"):
        prepared(table.replace({"label": {"no": "0", "yes": "1"}}))


@pytest.mark.parametrize("column", ["text", "label", "site"])
def test_missing_columns_are_named(prepared: Callable[..., Prepared], table: pd.DataFrame, column: str) -> None:
    with pytest.raises(DataError, match=f"Expected a column '{column}'"):
        prepared(table.rename(columns={column: "other"}))


def test_no_held_out_record_at_all_is_said(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    data = {"source": "table.csv", "partition": {"by": "column", "column": "site"}, "holdout": 1e-9}
    with pytest.raises(DataError, match="held-out records"):
        prepared(table, simulation={"data": data})


def test_noise_that_drowns_the_signal_is_said_before_training(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    found = prepared(table, privacy={"epsilon": 0.05, "sampling_rate": 0.3})
    assert any("This will not learn" in warning for warning in found.warnings)
    assert not any("will not learn" in warning for warning in prepared(table, privacy={"epsilon": 8.0}).warnings)


def test_a_delta_too_large_for_the_largest_site_is_said(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    assert any("privacy.delta" in w for w in prepared(table, privacy={"epsilon": 8.0, "delta": 0.01}).warnings)


def test_a_site_without_held_out_records_is_told(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    copies = [("bad", "no", "alike")] * 30
    found = prepared(with_rows(table, *copies), federation={"smallest_declared_size": 1})
    assert "alike: no usable record is held out, so no figure speaks of it." in found.warnings
    assert not any(name in warning for name in ("north", "south", "east") for warning in found.warnings)


def test_labels_of_the_study_that_no_site_trains_on_are_named(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    task = {"labels": ["no", "yes", "neutral"], "max_length": 16}
    absent = "No record that is trained on, at any site, has one of these task.labels: "
    assert f"{absent}'neutral'." in prepared(table, task=task).warnings
    assert f"{absent}'no', 'neutral'. Only 'yes' occurs." in prepared(table.assign(label="yes"), task=task).warnings
    assert not any(warning.startswith(absent) for warning in prepared(table).warnings)


def test_an_object_in_place_of_a_text_is_told(tmp_path: Path, scenario: Scenarios, table: pd.DataFrame) -> None:
    table = table.assign(text=[{"en": text} for text in table["text"]])
    table.to_json(tmp_path / "table.jsonl", orient="records", lines=True)
    found = prepare(scenario(), tmp_path / "table.jsonl", tmp_path)
    assert found.warnings[0].startswith("Column 'text': 360 of 360 cells are objects, not texts")


def test_what_is_read_in_another_spelling_is_counted(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    padded = table.assign(site=[f" {site}" if row % 2 else site for row, site in enumerate(table["site"])])
    padded["label"] = ["1.0" if label == "yes" else "0" for label in padded["label"]]
    task = {"labels": ["0", "1"], "max_length": 8}
    found = prepared(padded, task=task)
    assert [site.rows for site in found.sites] == [120] * 3 and not any(site.unusable for site in found.sites)
    assert "180 names of sites have blanks around them, which do not count." in found.warnings
    assert any(" records have texts of more than 8 tokens, and are cut" in warning for warning in found.warnings)
    ones = (table["label"] == "yes").sum()
    assert any(warning.startswith(f"{ones} labels or ratings") for warning in found.warnings)


def test_numbers_of_named_labels_count_as_their_names(tmp_path: Path, table: pd.DataFrame, scenario: Scenarios) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    numbered = table.assign(label=(table["label"] == "yes").astype(int))
    named = datasets.Dataset.from_pandas(numbered, preserve_index=False)
    named.cast_column("label", datasets.ClassLabel(names=["no", "yes"])).to_parquet(tmp_path / "t.parquet")
    found = prepare(scenario(), tmp_path / "t.parquet", tmp_path / "out")
    assert not any(site.unusable for site in found.sites)
    assert any("read as their names" in warning and '"1" is yes' in warning for warning in found.warnings)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_columns_of_every_shipped_scenario_are_accepted(file: Path) -> None:
    declared = scenarios.load(file)
    _check_columns(declared, Table(task_kind(declared.task), declared.simulation.data.columns))
