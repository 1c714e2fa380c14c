"""How one table becomes sites."""

import pandas as pd
import pytest

from shared.errors import DataError
from simulations.experiment.partition import ByColumn, Dirichlet, Iid, split


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
