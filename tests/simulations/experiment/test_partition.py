"""How one table becomes sites."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import TypeAdapter

from shared.errors import DataError
from simulations.experiment.partition import split
from simulations.experiment.partition_file import write_partition
from simulations.experiment.partition_kinds import ByColumn, Dirichlet, FromFile, Iid, Kind, Partition


def test_every_row_goes_to_exactly_one_site(table: pd.DataFrame) -> None:
    for how in (Iid(by="iid", sites=7), Dirichlet(by="dirichlet", sites=5, alpha=0.3)):
        parts = split(table, how, label_column="label", seed=1)
        together = pd.concat(parts.values())
        assert sorted(map(tuple, together.to_numpy())) == sorted(map(tuple, table.to_numpy()))
        assert len(parts) == how.sites


def test_iid_is_even_and_dirichlet_is_not(table: pd.DataFrame) -> None:
    def share(part: pd.DataFrame) -> float:
        return float((part.label == "yes").mean())

    even = split(table, Iid(by="iid", sites=4), label_column="label", seed=1)
    skewed = split(table, Dirichlet(by="dirichlet", sites=4, alpha=0.1), label_column="label", seed=1)
    assert max(map(len, even.values())) - min(map(len, even.values())) <= 1
    spread = [share(part) for part in skewed.values() if len(part)]
    assert max(spread) - min(spread) > 0.5 > max(map(share, even.values())) - min(map(share, even.values()))


def test_the_seed_decides_the_split(table: pd.DataFrame) -> None:
    for how in (Iid(by="iid", sites=3), Dirichlet(by="dirichlet", sites=3)):
        first, again, other = (split(table, how, label_column="label", seed=s) for s in (1, 1, 2))
        assert all(first[name].equals(again[name]) for name in first)
        assert any(not first[name].equals(other[name]) for name in first)


def test_a_column_names_the_sites(table: pd.DataFrame) -> None:
    parts = split(table, ByColumn(by="column", column="site"), label_column="label", seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"east": 120, "north": 120, "south": 120}


def test_impossible_splits_are_said(table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="at most 360 sites"):
        split(table, Iid(by="iid", sites=361), label_column="label", seed=0)
    with pytest.raises(DataError, match="only empty cells"):
        split(table.assign(site=" "), ByColumn(by="column", column="site"), label_column="label", seed=0)


def kind(**declared: Any) -> Kind:
    made: Kind = TypeAdapter(Partition).validate_python(declared)
    return made


@pytest.fixture(scope="module")
def many(table: pd.DataFrame) -> pd.DataFrame:
    """The table with six topics, and an age."""
    rows = range(len(table))
    return table.assign(topic=[f"t{row % 6}" for row in rows], age=[str(20 + row % 60) for row in rows])


def sites_of(many: pd.DataFrame, **declared: Any) -> dict[str, pd.DataFrame]:
    return split(many, kind(**declared), label_column="label", seed=1)


def test_pathological_sites_hold_a_few_values_each(many: pd.DataFrame) -> None:
    parts = sites_of(many, by="pathological", sites=6, labels_per_site=2, column="topic", assignment="deterministic")
    assert len(parts) == 6 and all(part.topic.nunique() == 2 for part in parts.values())
    assert sum(map(len, parts.values())) == len(many)


def test_shards_of_sorted_rows_are_dealt_out(many: pd.DataFrame) -> None:
    parts = sites_of(many, by="shards", sites=6, shards_per_site=2, column="topic")
    assert {len(part) for part in parts.values()} == {60}
    assert all(part.topic.nunique() <= 4 for part in parts.values())


@pytest.mark.parametrize("growth", ["linear", "square", "exponential"])
def test_sizes_grow_as_declared(many: pd.DataFrame, growth: str) -> None:
    sizes = [len(part) for part in sites_of(many, by="size", sites=4, growth=growth).values()]
    assert sizes == sorted(sizes) and sizes[-1] > 1.3 * sizes[0] and sum(sizes) == len(many)


def test_sizes_may_be_named(many: pd.DataFrame) -> None:
    parts = sites_of(many, by="size", sizes=[10, 50, 200])
    assert [len(part) for part in parts.values()] == [10, 50, 200]


def test_a_number_decides_as_strictly_as_declared(many: pd.DataFrame) -> None:
    def spread(strictness: float) -> float:
        parts = sites_of(many, by="continuous", sites=4, column="age", strictness=strictness)
        means = [part.age.astype(float).mean() for part in parts.values()]
        return max(means) - min(means)

    assert spread(1.0) > 35 > spread(0.5) > spread(0.0) and spread(0.0) < 8
    assert "fedvault: number" not in sites_of(many, by="continuous", sites=2, column="age")["site-0"]


def test_values_of_a_column_are_grouped_into_sites(many: pd.DataFrame) -> None:
    parts = sites_of(many, by="grouped", column="topic", group_size=4)
    assert [sorted(part.topic.unique()) for part in parts.values()] == [["t0", "t1", "t2", "t3"], ["t4", "t5"]]


def test_no_dirichlet_site_is_smaller_than_declared(many: pd.DataFrame) -> None:
    bare = sites_of(many, by="dirichlet", sites=6, alpha=0.2, column="topic")
    least = sites_of(many, by="dirichlet", sites=6, alpha=0.2, column="topic", smallest=20)
    assert min(map(len, least.values())) >= 20 > min(map(len, bare.values()))
    with pytest.raises(DataError, match=r"smallest=300 rows at .* partition.alpha=0.2 and sites=6 over 360"):
        sites_of(many, by="dirichlet", sites=6, alpha=0.2, smallest=300)


DEALT = (
    {"by": "pathological", "sites": 4, "labels_per_site": 1, "column": "topic"},
    {"by": "shards", "sites": 4, "column": "topic"},
    {"by": "size", "sites": 4},
    {"by": "continuous", "sites": 4, "column": "age"},
    {"by": "dirichlet", "sites": 4, "balanced": True},
    {"by": "grouped", "column": "topic", "group_size": 2},
)


@pytest.mark.parametrize("declared", DEALT, ids=lambda declared: declared["by"])
def test_every_partition_can_be_written_and_read_again(
    many: pd.DataFrame, declared: dict[str, Any], tmp_path: Path
) -> None:
    parts = sites_of(many, **declared)
    together = pd.concat(parts.values())
    assert not together.index.duplicated().any() and set(together.index) <= set(many.index)
    assert together.sort_index().equals(many.loc[sorted(together.index)]), "rows keep their number and cells"
    write_partition(tmp_path / "partition.csv", parts)
    how = FromFile(by="file", file="partition.csv")
    again = split(many, how, label_column="label", seed=9, folder=tmp_path)
    assert {name: set(part.index) for name, part in again.items()} == {
        name: set(part.index) for name, part in parts.items() if len(part)
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("number,site\n1,a\n", "header row,site"),
        ("", "header row,site"),
        ("row,site\n0,a\n", "a row from 1 to 360"),
        ("row,site\n361,a\n", "written for another table|a row from 1 to 360"),
        ("row,site\n1,a\n1,b\n", "once, and its site"),
        ("row,site\n1,\n", "once, and its site"),
        ("row,site\n\u0661,a\n", "a row from 1"),
        ("row,site\n1\n", "a row from 1"),
        ("row,site\n", "at least one row"),
    ],
)
def test_a_partition_file_that_fits_no_table_is_said(
    many: pd.DataFrame, tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "partition.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        split(many, FromFile(by="file", file="partition.csv"), label_column=None, seed=0, folder=tmp_path)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"by": "size", "sizes": [300, 100]}, "at most 360 rows in all, got 400"),
        ({"by": "continuous", "sites": 3, "column": "topic"}, "Expected a number in each cell of column 'topic'"),
        ({"by": "pathological", "sites": 361, "labels_per_site": 1}, "at most 360 sites"),
        ({"by": "pathological", "sites": 3, "labels_per_site": 5}, "labels_per_site of at most 2, .* 'label', got 5"),
        ({"by": "pathological", "sites": 360, "labels_per_site": 2}, "got fewer with partition.sites=360"),
        ({"by": "shards", "sites": 200}, "shards_per_site of at most 360 rows, got 200 times 2"),
        ({"by": "size", "sites": 200}, "smallest of partition.sites=200 with growth='linear' over 360 rows"),
        ({"by": "continuous", "sites": 3, "column": "alike"}, "different numbers in column 'alike'"),
    ],
)
def test_what_data_do_not_allow_is_said(many: pd.DataFrame, declared: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as refused:
        sites_of(many.assign(alike="1"), **declared)
    assert "num_" not in refused.value.hint, "another library's keys"


def test_without_labels_a_skewed_partition_asks_for_a_column(many: pd.DataFrame) -> None:
    for declared in ({"by": "shards", "sites": 3}, {"by": "dirichlet", "sites": 3}):
        with pytest.raises(DataError, match="a task with labels") as refused:
            split(many, kind(**declared), label_column=None, seed=0)
        assert "partition.column" in refused.value.hint
        assert len(split(many, kind(**declared, column="topic"), label_column=None, seed=0)) == 3


def test_sizes_and_sites_exclude_each_other() -> None:
    for wrong in ({}, {"sites": 3, "sizes": [1, 2]}):
        with pytest.raises(ValueError, match="either sites"):
            kind(by="size", **wrong)


def test_units_stay_whole_where_shares_are_unequal(many: pd.DataFrame) -> None:
    how = kind(by="size", sites=3)
    parts = split(many.assign(unit=[f"u{row // 4}" for row in range(len(many))]), how, label_column=None,
                  unit_column="unit", seed=1)  # fmt: skip
    units = [set(part.unit) for part in parts.values()]
    assert sum(map(len, units)) == len(set.union(*units)) == 90 and len(units[0]) < len(units[2])


def test_every_partition_has_its_words_in_the_model_card() -> None:
    from typing import get_args

    from simulations.results.model_card import PARTED

    assert set(PARTED) == {get_args(one.model_fields["by"].annotation)[0] for one in get_args(Kind)}
