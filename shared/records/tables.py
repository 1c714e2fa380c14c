"""Read an operator's table: CSV, TSV, JSON lines, Parquet, or a Hugging Face dataset folder.

Every cell is read by itself, as text or as its own JSON or Arrow type. A library that gives a whole column one type
would let one row change how others are spelled: one missing value makes 64-bit numbers fractions, many of them equal.

Images and recordings are files that a cell names, relative to the table, or bytes in the cell itself.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from shared.errors import DataError
from shared.records.media_files import read_media
from shared.study.tasks import CONTENT

DEEPEST = 100
"""Brackets within brackets in a line of JSON; a deeper row is read as empty cells, as Python's parser has a limit."""
MOST_DIGITS = 4000
"""Of a whole number in JSON; a longer one stays text, as Python's integers have a limit."""
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Source(NamedTuple):
    """A table as its file holds it."""

    names: list[str]
    """Of its columns, in order; a name may be there twice."""
    rows: int
    cells: Callable[[int], Sequence[Any]]
    """Returns one column's cells, by the column's number."""


def read_table(
    path: Path, columns: Sequence[str], media: Collection[str] = (), *, optional: Collection[str] = ()
) -> pd.DataFrame:
    """Read the named columns as text; a missing cell becomes an empty string.

    Literal words such as NA or null stay text. Numbers become their plain form (1, not 1.0), lists and objects JSON.

    Guarantee: how a cell is read depends on that cell alone, whatever other rows hold.

    Args:
        path: the table.
        columns: names of the columns to read.
        media: those whose cells are files; a cell becomes the file's bytes, empty if there is no such file.
        optional: those that may be missing; their cells are then empty.

    Raises:
        DataError: no such file, an unknown kind of file, an unreadable file, missing or doubled columns, no rows.
    """
    table = _read(path)
    doubled = [name for name in columns if table.names.count(name) > 1]
    if doubled:
        raise DataError(f"Expected each column of {path} once, got {doubled[0]!r} more than once.")
    missing = [name for name in columns if name not in table.names and name not in optional]
    if missing:
        raise DataError(
            f"Expected a column {missing[0]!r} in {path}, got {', '.join(map(repr, table.names)) or 'none'}.",
            hint='Name the right one in `columns`, as in columns = { text = "review", label = "stars" }.',
        )
    if not table.rows:
        raise DataError(f"Expected records in {path}, got a table without rows.")
    return as_text(table, columns, media, path)


def as_text(table: Source, columns: Sequence[str], media: Collection[str], path: Path) -> pd.DataFrame:
    """Return the named columns of a source as text, and media as bytes; a column that is not there is empty."""
    folder = path if path.is_dir() else path.parent
    return pd.DataFrame(
        {
            name: [_media(cell, folder) if name in media else _text(cell) for cell in _cells(table, name)]
            for name in dict.fromkeys(columns)
        },
        dtype=object,
    )


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        DataError: no such file, an unknown kind of file, or an unreadable file.
    """
    return _read(path).names


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


def _cells(table: Source, name: str) -> Sequence[Any]:
    return table.cells(table.names.index(name)) if name in table.names else [None] * table.rows


def _read(path: Path) -> Source:
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


def _delimited(delimiter: str) -> Callable[[Path], Source]:
    def read(path: Path) -> Source:
        # the header is read as a row, because pandas would rename doubled columns silently
        rows = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=False, header=None, encoding="utf-8-sig")
        return Source(rows.iloc[0].tolist(), len(rows) - 1, lambda column: rows[column].tolist()[1:])

    return read


def _json_lines(path: Path) -> Source:
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    rows = [_json_row(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Source(names, len(rows), lambda column: [row.get(names[column]) for row in rows])


def _json_row(line: str, number: int) -> dict[str, Any]:
    if _too_deep(line):
        return {}
    try:
        row = json.loads(line, strict=False, parse_int=_integer)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: not an object with a value for each column")
    return row


def _too_deep(line: str) -> bool:
    if line.count("[") + line.count("{") <= DEEPEST:
        return False
    depth = 0
    for bracket in re.findall(r"[][{}]", JSON_STRING.sub("", line)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            return True
    return False


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def _parquet(path: Path) -> Source:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return _arrow(file.read())


def _dataset_folder(path: Path) -> Source:
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
    return _arrow(dataset.with_format("arrow")[:])


def _arrow(table: Any) -> Source:
    """Take over an Arrow table, whose columns have types of their own, missing values or not."""

    def cells(column: int) -> list[Any]:
        try:
            return list(table.column(column).to_pylist())
        except (ValueError, OverflowError):
            return [_own(cell) for cell in table.column(column)]

    return Source(list(table.column_names), table.num_rows, cells)


def _own(cell: Any) -> Any:
    """Return an Arrow cell as a Python value; one that Python cannot hold, such as the year 10,000, as some text."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        raw = cell.as_buffer().to_pybytes() if hasattr(cell, "as_buffer") else None
        return str(cell.cast("string")) if raw is None else raw.decode("utf-8", "replace")


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and cell != cell) or cell is pd.NA:
        return ""
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
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
    return read_media(folder / name) if name else b""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_READERS: dict[str, Callable[[Path], Source]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
