"""A partition as a CSV file, `row,site`: written by every run, and read where a scenario names one."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from shared.files import write_atomically

HEADER = ["row", "site"]


def write_partition(path: Path, parts: Mapping[str, pd.DataFrame]) -> None:
    """Write which site each row of a table belongs to; rows are counted from 1, and those of no site are left out."""
    rows = sorted((int(number) + 1, site) for site, part in parts.items() for number in part.index)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    write_atomically(path, text.getvalue().encode("utf-8", "surrogatepass"))


def read_partition(path: Path, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Give each site the rows that a file names, sites in alphabetical order.

    Raises:
        DataError: no such file, another header, or a row that the table does not have, or that is named twice.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8", "surrogatepass"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"Expected a partition file, got {path}, which cannot be read.",
            hint=f"It is relative to the folder of simulation.data.source ({error}).",
        ) from None
    if not lines or lines[0] != HEADER:
        raise DataError(f"Expected the header row,site in {path}, got {','.join(lines[0]) if lines else 'nothing'!r}.")
    site_of, last = dict[int, str](), int(table.index.max()) + 1  # rows of a global test are counted, and of no site
    for number, line in enumerate(lines[1:], start=2):
        row = int(line[0]) if len(line) == 2 and line[0].isascii() and line[0].isdigit() and len(line[0]) < 19 else 0
        if not 1 <= row <= last or row in site_of or not line[1].strip():
            written = ",".join(line)
            raise DataError(
                f"Expected a row from 1 to {last}, once, and its site, got {written!r} in line {number} of {path}.",
                hint="Was the file written for another table?",
            )
        site_of[row] = line[1].strip()
    if not site_of:
        raise DataError(f"Expected at least one row in {path}, got none.")
    return parts_by_name(table, [site_of.get(int(number) + 1) for number in table.index])


def parts_by_name(table: pd.DataFrame, names: Sequence[str | None]) -> dict[str, pd.DataFrame]:
    """Give each site its rows in the table's order, sites in alphabetical order; a row without a name has none."""
    sites = pd.Series(list(names), index=table.index, dtype=object)
    return {site: table[sites == site] for site in sorted(set(sites.dropna()))}
