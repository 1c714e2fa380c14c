"""Data that cannot be used, or not all of them, say why: the rows' own reasons come before any advice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shared.errors import DataError, SettingsError
from shared.records.ragged import Problem
from simulations.experiment.data_notes import SplitSide, near_equal, over_sites, unusable_held_out
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import GLOBAL_TEST, Prepared

Scenarios = Callable[..., Scenario]
BY_SITE = {"by": "column", "column": "site"}


@pytest.fixture
def prepared(tmp_path: Path, scenario: Scenarios) -> Callable[..., Prepared]:
    def make(rows: pd.DataFrame, sections: Any = None, **data: Any) -> Prepared:
        rows.to_csv(tmp_path / "table.csv", index=False)
        declared = {"source": "table.csv", "partition": BY_SITE, **data}
        small = {"federation": {"rounds": 3, "smallest_declared_size": 1}, **(sections or {})}
        return prepare(scenario(simulation={"data": declared}, **small), tmp_path / "table.csv", tmp_path)

    return make


def refusal(make: Callable[..., Prepared], *given: Any, **data: Any) -> str:
    with pytest.raises(DataError) as raised:
        make(*given, **data)
    assert "holdout" not in raised.value.hint
    return f"{raised.value} {raised.value.hint}"


NONE_USABLE: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "words for ratings": (
        {"label": "5 stars"},
        {"problem": "rating", "rating_range": [1, 5], "labels": []},
        "row 1: its label '5 stars' is no number",
    ),
    "labels with a mark of their own": (
        {"label": "no;yes"},
        {"problem": "multi-label"},
        "row 1: its label 'no;yes' is none of the study's",
    ),
    "empty texts": ({"text": " "}, {}, "row 1: its text is empty"),
}


@pytest.mark.parametrize("case", NONE_USABLE)
def test_where_no_record_can_be_used_the_rows_say_why(
    prepared: Callable[..., Prepared], table: pd.DataFrame, case: str
) -> None:
    cells, task, reason = NONE_USABLE[case]
    words = refusal(prepared, table.assign(**cells), {"task": {"max_length": 24, "labels": ["no", "yes"]} | task})
    assert "none of 360 could be used" in words and reason in words and "and 357 more" in words


def test_where_one_side_cannot_be_used_its_own_rows_say_why(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    marked = table.assign(split=["train", "test"] * 180)
    others = marked.assign(label=[label.upper() if row % 2 else label for row, label in enumerate(table["label"])])
    for own in ({}, {"global_test": True}):
        words = refusal(prepared, others, split_column="split", **own)
        assert "held-out records, got none of 180" in words and "row 2: its label" in words
    reversed_marks = others.assign(split=["test", "train"] * 180)
    assert "to train on, got none of 180" in refusal(prepared, reversed_marks, split_column="split")


def test_rows_that_all_stand_on_one_side_say_so(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    assert "All 360 rows have one content" in refusal(prepared, table.assign(text="good"))
    assert "All 360 rows have one content" in refusal(
        prepared, table.assign(text="good"), {"federation": {"rounds": 3, "smallest_declared_size": 20}}
    )
    unit = {"privacy": {"epsilon": 8.0, "sampling_rate": 0.3, "unit": "patient", "records_per_unit": 9}}
    assert "All 360 rows have one patient" in refusal(prepared, table.assign(patient="P1"), unit, unit_column="patient")


def test_copies_are_counted_by_site(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    alone = table.drop_duplicates(["text"])
    assert not any("copies" in warning for warning in prepared(alone).warnings)
    north = alone[alone.site == "north"]
    found = prepared(pd.concat([alone, north, north]))
    (site,) = [site for site in found.sites if site.name == "north"]
    (note,) = [warning for warning in found.warnings if "copies" in warning]
    assert note.startswith(f"north: {2 * site.train} of {3 * site.train} training rows are encoded as another one is")


def test_copies_at_many_sites_are_one_note() -> None:
    counts = {"a": (2, 10), "b": (0, 10), "c": (7, 10), "d": (3, 10), "e": (1, 10), "f": (1, 10)}
    told = "14 of 60 rows are copies: 7 at c, 3 at d, 2 at a, the others at 2 more sites."
    assert over_sites(counts, "rows are copies") == [told]
    assert over_sites({"a": (2, 10), "b": (0, 10)}, "rows are copies") == ["a: 2 of 10 rows are copies."]
    assert over_sites({"b": (0, 10)}, "rows are copies") == []


def test_held_out_rows_that_any_site_trains_on_are_counted(
    prepared: Callable[..., Prepared], table: pd.DataFrame, tmp_path: Path
) -> None:
    alone = table.drop_duplicates(["text"]).reset_index(drop=True)
    north = alone[alone.site == "north"]
    test = pd.concat([north.head(3).assign(site="south"), alone.tail(9), north.tail(1).assign(text="new one")])
    test.to_csv(tmp_path / "test.csv", index=False)
    found = prepared(alone.head(len(alone) - 5), test="test.csv")
    assert [warning for warning in found.warnings if "held-out rows" in warning] == [
        "7 of 13 held-out rows have the content of a row that is trained on: 4 at east, 3 at south.",
    ]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["Berlin", "BERLIN", "Bern"], "'Berlin' and 'BERLIN' are"),
        (["Zürich", "Zu\u0308rich"], r"'Z\xfcrich' and 'Zu\u0308rich' are"),
        (["north", "north\u200b", "south"], r"'north' and 'north\u200b' are"),
        (["7", "8", "7.0", "07"], "'7' and '7.0' and '07' are"),
        (["site-01", "site-1", "a b", "ab"], ""),
    ],
)
def test_sites_whose_names_look_alike_are_kept_apart_and_told(names: list[str], shown: str) -> None:
    notes = near_equal(names)
    assert [note.startswith(shown) for note in notes] == ([True] if shown else [])


def test_near_equal_names_are_told_with_the_sites(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    found = prepared(table.replace({"site": {"south": "NORTH"}}))
    assert [site.name for site in found.sites] == ["NORTH", "east", "north"]
    assert any("'NORTH' and 'north' are sites of their own" in warning for warning in found.warnings)


def test_no_site_takes_the_name_of_the_global_test(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    named = table.replace({"site": {"south": GLOBAL_TEST}}).assign(split=["train", "test"] * 180)
    assert GLOBAL_TEST in [site.name for site in prepared(named, split_column="split").sites]
    assert "Expected no site called 'global test'" in refusal(prepared, named, split_column="split", global_test=True)


def test_a_column_that_the_task_does_not_read_is_refused(
    prepared: Callable[..., Prepared], table: pd.DataFrame
) -> None:
    with pytest.raises(SettingsError, match="which are text, label, got 'txt'") as raised:
        prepared(table.assign(review=table["text"]), columns={"txt": "review"})
    assert 'columns = { text = "review" }' in raised.value.hint


def test_one_column_for_two_of_the_task_is_refused(prepared: Callable[..., Prepared], table: pd.DataFrame) -> None:
    for columns in ({"text": "label"}, {"text": "site", "label": "site"}):
        with pytest.raises(SettingsError, match=f"got '{columns['text']}' for text and label") as raised:
            prepared(table, columns=columns)
        assert "simulation.data.columns" in raised.value.hint


def test_held_out_records_that_cannot_be_used_are_counted_with_their_reasons() -> None:
    problems = (Problem(4, "its label 'perhaps' is none of the study's"),)
    (note,) = unusable_held_out("north", SplitSide(98, 57, problems))
    assert note.startswith("north: 41 of 98 held-out records unusable, and so in no figure; row 5: its label 'perhaps'")
    assert unusable_held_out("north", SplitSide(98, 98, ())) == []
