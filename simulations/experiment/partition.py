"""Split one table into sites, through the partitioners of flwr-datasets."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from client.vault.records.identity import unit_name
from shared.errors import DataError
from simulations.experiment.partition_file import parts_by_name, read_partition
from simulations.experiment.partition_kinds import (
    ByColumn,
    ByPlugin,
    BySize,
    Continuous,
    Dirichlet,
    FromFile,
    Grouped,
    Iid,
    Kind,
    Pathological,
    Shards,
)
from simulations.experiment.partition_plugin import site_names

ROW, UNIT, NUMBER = "fedvault: number of the row", "fedvault: unit", "fedvault: number"
"""Columns that are added while sites are dealt out; no column of a table is called so."""


def split(
    table: pd.DataFrame,
    how: Kind,
    *,
    label_column: str | None,
    unit_column: str | None = None,
    seed: int,
    folder: Path = Path(),
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
        folder: of the source, which a partition file is relative to.

    Raises:
        DataError: no row names a site, there are more sites than rows or units, or a partition file fits another table.
        SettingsError: a plug-in is not installed, or does not say which site each row belongs to.
    """
    if isinstance(how, FromFile):
        parts = read_partition(folder / Path(how.file).expanduser(), table)
    elif isinstance(how, ByPlugin):
        parts = parts_by_name(table, site_names(table, how, label_column, unit_column, seed))
    else:
        parts = _parts(table, how, label_column=label_column, unit_column=unit_column, seed=seed)
    for part in parts.values():
        part.attrs = table.attrs  # what its file says of it, which the partitioners drop
    return parts


def _parts(
    table: pd.DataFrame,
    how: Kind,
    *,
    label_column: str | None,
    unit_column: str | None,
    seed: int,
) -> dict[str, pd.DataFrame]:
    if unit_column is not None and isinstance(how, Iid | BySize):
        return _units_dealt(table, how, unit_column, seed)
    if isinstance(how, ByColumn | Grouped):
        names = table[how.column].str.strip()
        table = table.assign(**{how.column: names})[names != ""]
        if table.empty:
            raise DataError(f"Expected site names in column {how.column!r}, got only empty cells.")
    else:
        _check_size(how, len(table), "rows")
    if isinstance(how, Dirichlet | Pathological | Shards) and how.column is None and label_column is None:
        raise DataError(
            f"Expected a task with labels for partition.by={how.by!r}, got one without.",
            hint="Name the column that sites are to differ in: partition.column",
        )
    return _partitioned(table, how, label_column, seed)


def _check_size(how: Kind, count: int, what: str) -> None:
    sites = getattr(how, "sites", None)
    if sites is not None and sites > count:
        raise DataError(f"Expected at most {count} sites for {count} {what}, got sites={sites}.")
    sizes = getattr(how, "sizes", None)
    if sizes is not None and sum(sizes) > count:
        raise DataError(f"Expected partition.sizes of at most {count} {what} in all, got {sum(sizes)}.")


def _units_dealt(table: pd.DataFrame, how: Iid | BySize, unit_column: str, seed: int) -> dict[str, pd.DataFrame]:
    names = table[unit_column].map(unit_name)
    units = pd.DataFrame({UNIT: names[names != ""].unique()})
    _check_size(how, len(units), "units")
    dealt = _partitioned(units, how, None, seed)
    site_of = {unit: site for site, part in dealt.items() for unit in part[UNIT]}
    site_of[""] = next(iter(dealt))  # a row without a unit is not used, wherever it is
    by_site = table.groupby(names.map(site_of))
    return {site: by_site.get_group(site) for site in dealt if site in by_site.groups}


def _partitioned(table: pd.DataFrame, how: Kind, label_column: str | None, seed: int) -> dict[str, pd.DataFrame]:
    from datasets import Dataset

    partitioner = _partitioner(how, label_column, seed)
    shuffled = table if isinstance(how, ByColumn) else table.sample(frac=1, random_state=seed)
    # rows keep their numbers in the table, by which problems are named
    numbered = shuffled.assign(**{ROW: shuffled.index}).reset_index(drop=True)
    if isinstance(how, Continuous):
        numbered[NUMBER] = _numbers(numbered[how.column], how.column)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice of the package; what is left out is counted in the result's notes
            partitioner.dataset = Dataset.from_pandas(numbered, preserve_index=False)
            loaded = {i: partitioner.load_partition(i).to_pandas() for i in range(partitioner.num_partitions)}
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise _not_allowed(how, numbered, label_column, error) from None
    parts = {
        i: part.set_index(ROW).rename_axis(None).drop(columns=[NUMBER], errors="ignore") for i, part in loaded.items()
    }
    if isinstance(how, ByColumn):
        named = {str(part[how.column].iloc[0]): part for part in parts.values()}
        return {name: named[name] for name in sorted(named)}
    digits = len(str(len(parts) - 1))
    return {f"site-{i:0{digits}d}": part for i, part in parts.items()}


def _not_allowed(how: Kind, table: pd.DataFrame, label_column: str | None, error: Exception) -> DataError:
    """Return a sentence, in a scenario's own words, on what a partitioner of flwr-datasets refused."""
    rows, column = len(table), getattr(how, "column", None) or label_column
    match how:
        case Pathological(sites=sites, labels_per_site=labels):
            values = table[column].nunique()
            if labels > values:
                return DataError(
                    f"Expected partition.labels_per_site of at most {values}, the different values in column "
                    f"{column!r}, got {labels}."
                )
            return DataError(
                f"Expected as many rows of each value in column {column!r} as sites that it goes to, got fewer with "
                f"partition.sites={sites} and labels_per_site={labels}.",
                hint='Lower one of both, or set partition.assignment = "deterministic", which spreads values evenly.',
            )
        case Shards(sites=sites, shards_per_site=each):
            return DataError(
                f"Expected partition.sites times shards_per_site of at most {rows} rows, got {sites} times {each}."
            )
        case Dirichlet(sites=sites, alpha=alpha, smallest=smallest):
            return DataError(
                f"Expected partition.smallest={smallest} rows at each site in one of ten draws, got fewer with "
                f"partition.alpha={alpha:g} and sites={sites} over {rows} rows.",
                hint="Raise alpha, or lower smallest or sites.",
            )
        case BySize(sites=sites, growth=growth):
            return DataError(
                f"Expected a row for each site, got none for the smallest of partition.sites={sites} with "
                f"growth={growth!r} over {rows} rows.",
                hint="Lower sites, or take a growth that is slower.",
            )
        case Continuous():
            return DataError(
                f"Expected different numbers in column {column!r}, got nearly the same in each of {rows} rows.",
                hint="Name another partition.column, or set partition.strictness = 0.",
            )
    return DataError(f"Expected rows that partition.by={how.by!r} can deal out, got others: {error}")


def _numbers(cells: pd.Series, column: str) -> pd.Series:
    numbers = pd.to_numeric(cells, errors="coerce")
    if not np.isfinite(numbers).all():
        wrong = cells[~np.isfinite(numbers)].iloc[0]
        raise DataError(f"Expected a number in each cell of column {column!r}, got {wrong!r}.")
    return numbers


def _partitioner(how: Kind, label_column: str | None, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports optional plotting code that warns about itself
        from flwr_datasets import partitioner as kinds
    match how:
        case ByColumn():
            return kinds.NaturalIdPartitioner(partition_by=how.column)
        case Grouped():
            return kinds.GroupedNaturalIdPartitioner(how.column, how.group_size, sort_unique_ids=True)
        case Iid():
            return kinds.IidPartitioner(num_partitions=how.sites)
        case BySize():
            growing = {
                "linear": kinds.LinearPartitioner,
                "square": kinds.SquarePartitioner,
                "exponential": kinds.ExponentialPartitioner,
            }
            return kinds.SizePartitioner([*how.sizes]) if how.sizes else growing[how.growth](how.sites)
        case Continuous():
            return kinds.ContinuousPartitioner(how.sites, NUMBER, how.strictness, seed=seed)
        case Shards():
            by, each = how.column or label_column, how.shards_per_site
            return kinds.ShardPartitioner(how.sites, by, num_shards_per_partition=each, seed=seed)
        case Pathological():
            by, mode = how.column or label_column, how.assignment
            return kinds.PathologicalPartitioner(how.sites, by, how.labels_per_site, mode, seed=seed)
        case Dirichlet():
            by, least = how.column or label_column, how.smallest
            return kinds.DirichletPartitioner(
                how.sites, by, how.alpha, min_partition_size=least, self_balancing=how.balanced, seed=seed
            )
    raise DataError(f"Expected a partition that is dealt out, got partition.by={how.by!r}.")
