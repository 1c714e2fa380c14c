"""Split one table into sites, through the partitioners of flwr-datasets."""

from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from client.vault.records.identity import unit_name
from shared.errors import DataError
from shared.section import Positive, Section


class ByColumn(Section):
    """A partition with one site per value of a column: the natural one."""

    by: Literal["column"]
    column: str


class Iid(Section):
    """A partition that deals out rows, or units with all their rows, evenly at random."""

    by: Literal["iid"]
    sites: int = Field(ge=1, le=100_000)


class Dirichlet(Section):
    """A partition that draws label proportions per site; the smaller alpha, the less alike are sites."""

    by: Literal["dirichlet"]
    sites: int = Field(ge=1, le=100_000)
    alpha: Positive = 0.5


ROW, UNIT = "fedvault: number of the row", "fedvault: unit"  # no column of a table is called so
Partition = Annotated[ByColumn | Iid | Dirichlet, Field(discriminator="by")]


def split(
    table: pd.DataFrame,
    how: ByColumn | Iid | Dirichlet,
    *,
    label_column: str | None,
    unit_column: str | None = None,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Give each site its rows, sites in a stable order.

    Rows with an empty cell in the site column belong to no site and are left out; callers compare counts.

    Args:
        table: all rows.
        how: what makes a site.
        label_column: what a record is, for sites that are skewed by it.
        unit_column: names each row's unit of privacy; units that are dealt out stay whole. A unit whose rows name
            several sites is a unit of each of them.
        seed: of whatever is dealt out or drawn.

    Raises:
        DataError: no row names a site, or there are more sites than rows or units.
    """
    parts = _parts(table, how, label_column=label_column, unit_column=unit_column, seed=seed)
    for part in parts.values():
        part.attrs = table.attrs  # what its file says of it, which the partitioners drop
    return parts


def _parts(
    table: pd.DataFrame,
    how: ByColumn | Iid | Dirichlet,
    *,
    label_column: str | None,
    unit_column: str | None,
    seed: int,
) -> dict[str, pd.DataFrame]:
    if unit_column is not None and isinstance(how, Iid):
        return _units_dealt(table, how, unit_column, seed)
    if isinstance(how, ByColumn):
        names = table[how.column].str.strip()
        table = table.assign(**{how.column: names})[names != ""]
        if table.empty:
            raise DataError(f"Expected site names in column {how.column!r}, got only empty cells.")
    elif how.sites > len(table):
        raise DataError(f"Expected at most {len(table)} sites for {len(table)} rows, got sites={how.sites}.")
    if isinstance(how, Dirichlet) and label_column is None:
        raise DataError("Expected a task with labels for partition.by='dirichlet', got one without.")
    return _partitioned(table, how, label_column, seed)


def _units_dealt(table: pd.DataFrame, how: Iid, unit_column: str, seed: int) -> dict[str, pd.DataFrame]:
    names = table[unit_column].map(unit_name)
    units = pd.DataFrame({UNIT: names[names != ""].unique()})
    if how.sites > len(units):
        raise DataError(f"Expected at most {len(units)} sites for {len(units)} units, got sites={how.sites}.")
    dealt = _partitioned(units, how, None, seed)
    site_of = {unit: site for site, part in dealt.items() for unit in part[UNIT]}
    site_of[""] = next(iter(dealt))  # a row without a unit is not used, wherever it is
    by_site = table.groupby(names.map(site_of))
    return {site: by_site.get_group(site) for site in dealt}


def _partitioned(
    table: pd.DataFrame, how: ByColumn | Iid | Dirichlet, label_column: str | None, seed: int
) -> dict[str, pd.DataFrame]:
    from datasets import Dataset

    partitioner = _partitioner(how, label_column, seed)
    shuffled = table if isinstance(how, ByColumn) else table.sample(frac=1, random_state=seed)
    # rows keep their numbers in the table, by which problems are named
    numbered = shuffled.assign(**{ROW: shuffled.index}).reset_index(drop=True)
    partitioner.dataset = Dataset.from_pandas(numbered, preserve_index=False)
    try:
        loaded = {i: partitioner.load_partition(i).to_pandas() for i in range(partitioner.num_partitions)}
        parts = {i: part.set_index(ROW).rename_axis(None) for i, part in loaded.items()}
    except ValueError as error:
        raise DataError("Expected a partition that the data allows, got none.", hint=str(error)) from None
    if isinstance(how, ByColumn):
        named = {str(part[how.column].iloc[0]): part for part in parts.values()}
        return {name: named[name] for name in sorted(named)}
    digits = len(str(len(parts) - 1))
    return {f"site-{i:0{digits}d}": part for i, part in parts.items()}


def _partitioner(how: ByColumn | Iid | Dirichlet, label_column: str | None, seed: int) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports optional plotting code that warns about itself
        from flwr_datasets import partitioner as kinds
    if isinstance(how, ByColumn):
        return kinds.NaturalIdPartitioner(partition_by=how.column)
    if isinstance(how, Iid):
        return kinds.IidPartitioner(num_partitions=how.sites)
    return kinds.DirichletPartitioner(
        num_partitions=how.sites, partition_by=label_column, alpha=how.alpha, min_partition_size=0, seed=seed
    )
