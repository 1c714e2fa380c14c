"""Read an operator's table: CSV, TSV, JSON lines, Parquet, or a Hugging Face dataset folder.

Images and recordings are files that a cell names, relative to the table, or bytes in the cell itself.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shared.errors import DataError
from shared.study.tasks import CONTENT


def read_table(
    path: Path, columns: Sequence[str], media: Collection[str] = (), *, optional: Collection[str] = ()
) -> pd.DataFrame:
    """Read the named columns as text; a missing cell becomes an empty string.

    Literal words such as NA or null stay text. Numbers become their plain form (1, not 1.0), lists and objects JSON.

    Args:
        path: the table.
        columns: names of the columns to read.
        media: those whose cells are files; a cell becomes the file's bytes, empty if there is no such file.
        optional: those that may be missing; their cells are then empty.

    Raises:
        DataError: no such file, an unknown kind of file, an unreadable file, missing or doubled columns, no rows.
    """
    table = _read(path)
    doubled = [name for name in columns if list(table.columns).count(name) > 1]
    if doubled:
        raise DataError(f"Expected each column of {path} once, got {doubled[0]!r} more than once.")
    table = table.assign(**{name: "" for name in optional if name not in table.columns})
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"Expected a column {missing[0]!r} in {path}, got {', '.join(map(repr, table.columns)) or 'none'}.",
            hint='Name the right one in `columns`, as in columns = { text = "review", label = "stars" }.',
        )
    if table.empty:
        raise DataError(f"Expected records in {path}, got a table without rows.")
    folder = path if path.is_dir() else path.parent
    return pd.DataFrame(
        {
            name: [_media(cell, folder) if name in media else _text(cell) for cell in table[name]]
            for name in dict.fromkeys(columns)
        }
    )


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        DataError: no such file, an unknown kind of file, or an unreadable file.
    """
    return [str(name) for name in _read(path).columns]


def content_columns(columns: Collection[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the columns that say which record a row is, whatever task reads it: tasks' names to the table's names.

    Args:
        columns: of the table.
        names: the table's names of tasks' columns, where they differ.

    Raises:
        DataError: the table has no such column.
    """
    called = {name: names.get(name, name) for name in CONTENT}
    present = {name: column for name, column in called.items() if column in columns}
    if not present:
        raise DataError(
            f"Expected a column with texts, images or recordings, got {', '.join(map(repr, columns)) or 'none'}.",
            hint='Name it in `columns`, as in columns = { text = "report" }. Possible names: ' + ", ".join(CONTENT),
        )
    return present


def identity(cell: str | bytes) -> str:
    """Return a text that is equal for equal cells only: the text itself, or the digest of a file."""
    return cell if isinstance(cell, str) else f"sha256 {hashlib.sha256(cell).hexdigest()}" if cell else ""


def _read(path: Path) -> pd.DataFrame:
    if path.is_dir():
        return _dataset_folder(path)
    if not path.is_file():
        raise DataError(f"Expected a data file, got {path}, which is not there.", hint="Check the path of `source`.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"Expected one of {', '.join(_READERS)} or a dataset folder, got {path.name!r}.")
    if path.stat().st_size == 0:
        raise DataError(f"Expected records in {path}, got an empty file.")
    try:
        return reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"Expected UTF-8 text in {path}, got other bytes at {error.start}.") from None
    except Exception as error:  # each parser has its own error kinds; all mean that the file is not what it says
        raise DataError(f"Expected a readable {path.suffix} file, got {path}.", hint=_first_line(error)) from error


def _delimited(delimiter: str) -> Callable[[Path], pd.DataFrame]:
    def read(path: Path) -> pd.DataFrame:
        # the header is read as a row, because pandas would rename doubled columns silently
        rows = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=False, header=None, encoding="utf-8-sig")
        table = rows.iloc[1:].reset_index(drop=True)
        table.columns = pd.Index(rows.iloc[0].tolist())
        return table

    return read


def _json_lines(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype=False, encoding="utf-8")


def _dataset_folder(path: Path) -> pd.DataFrame:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception as error:  # as above: many kinds, one meaning
        raise DataError(f"Expected a dataset folder, got {path}.", hint=_first_line(error)) from error
    if isinstance(dataset, datasets.DatasetDict):
        raise DataError(
            f"Expected one split, got a folder with {', '.join(dataset)}.",
            hint=f"Name one, as in {path / next(iter(dataset))}.",
        )
    table: pd.DataFrame = dataset.to_pandas()
    return table


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and cell != cell) or cell is pd.NA:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, dict | list | np.ndarray):
        return json.dumps(cell, ensure_ascii=False, default=_plain)
    return str(cell)


def _plain(part: Any) -> Any:
    """Turn what JSON cannot hold into what it can: arrays and their numbers to lists and numbers, the rest to text."""
    return part.tolist() if isinstance(part, np.ndarray | np.generic) else str(part)


def _media(cell: Any, folder: Path) -> bytes:
    if isinstance(cell, dict):  # as Hugging Face datasets keep images and audio
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    name = _text(cell).strip()
    try:
        return (folder / name).read_bytes() if name else b""
    except OSError:
        return b""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".parquet": lambda path: pd.read_parquet(path),
}
