"""Read a table as FedVault did before it read cell by cell: pandas gave each column one type.

Only the record index asks for it: a dataset that was registered then is known by these spellings.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from shared.records.formats import Source
from shared.records.tables import as_text, read_table


def read_earlier_table(path: Path, columns: Sequence[str], media: Collection[str] = ()) -> pd.DataFrame:
    """Read the named columns as text, as the first version of the record identity spelled them.

    A table that could not be read that way was never registered: it is read as today.

    Raises:
        DataError: it cannot be read today, either.
    """
    today = read_table(path, columns, media)
    if path.suffix.lower() in (".csv", ".tsv"):  # their cells were text then, too
        return today
    try:
        table = _typed_by_column(path)
        earlier = Source(list(table.columns), len(table), lambda column: table.iloc[:, column].tolist())
        return today if len(table) != len(today) else as_text(earlier, columns, media, path)
    except Exception:  # pandas has many kinds
        return today


def _typed_by_column(path: Path) -> pd.DataFrame:
    if path.is_dir():
        import datasets

        table: pd.DataFrame = datasets.load_from_disk(str(path)).to_pandas()
        return table
    if path.suffix.lower() == ".parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=True, dtype=False, encoding="utf-8")
