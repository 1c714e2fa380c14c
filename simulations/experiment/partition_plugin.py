"""Which site each row belongs to, as a plug-in says: a function that is called once, with a copy of the table."""

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from server.plugins.packages import PARTITIONERS, Plugin, plugin
from simulations.experiment.partition_kinds import ByPlugin

log = logging.getLogger(__name__)
LONGEST_NAME = 200


def site_names(
    table: pd.DataFrame, how: ByPlugin, label_column: str | None, unit_column: str | None, seed: int
) -> list[str | None]:
    """Return the name of each row's site, None where a row belongs to none.

    Args:
        table: all rows; the plug-in gets a copy of it.
        how: names the plug-in, with its options.
        label_column: what a record is, if the task has labels.
        unit_column: names each row's unit of privacy, if it is no single record.
        seed: of whatever it draws.

    Raises:
        SettingsError: no package offers it, it takes other options, it raises, or returns no name for each row.
    """
    offered = plugin(PARTITIONERS, how.name)
    partition = offered.load()
    given = {"seed": seed, "label_column": label_column, "unit_column": unit_column, **how.options}
    copy = table.reset_index(drop=True)
    _check_options(offered, partition, copy, given)
    try:
        names = partition(copy.copy(), **given)
    except Exception as error:
        log.info("A plug-in failed.", exc_info=error)
        raise offered.failed("deal the rows out", error) from None
    return _checked(offered, names, len(table))


def _check_options(offered: Plugin, partition: Callable[..., Any], table: pd.DataFrame, given: dict[str, Any]) -> None:
    try:
        inspect.signature(partition).bind(table, **given)
    except TypeError as error:
        what = "take partition.options, with seed, label_column and unit_column beside them"
        raise offered.failed(what, error) from None


def _checked(offered: Plugin, names: object, rows: int) -> list[str | None]:
    what = "return a name or None for each row"
    if isinstance(names, str) or not isinstance(names, Sequence | pd.Series):
        raise offered.failed(f"{what}, in a list", f"a {type(names).__name__}")
    listed = [None if name is None else name for name in names]
    if len(listed) != rows:
        raise offered.failed(what, f"{len(listed)} for {rows} rows")
    for name in listed:
        if name is not None and not (isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME):
            raise offered.failed(what, repr(name)[:LONGEST_NAME])
    if not any(listed):
        raise offered.failed(f"{what}, and a name for one at least", "None for all")
    return [None if name is None else name.strip() for name in listed]
