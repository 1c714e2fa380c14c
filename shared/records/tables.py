"""Read an operator's table: CSV, TSV, JSON, JSON lines, Parquet, or a Hugging Face dataset folder.

Every cell is read by itself, as text or as its own JSON or Arrow type. A library that gives a whole column one type
would let one row change how others are spelled: one missing value makes 64-bit numbers fractions, many of them equal.

Images and recordings are files that a cell names, relative to the table, or bytes in the cell itself.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shared.errors import DataError
from shared.records.formats import LARGEST_EXACT, SAVE_AS, Source, open_table
from shared.records.media_files import read_media
from shared.spelling import meant
from shared.study.tasks import COLUMNS, CONTENT

NOTES, LABEL_NAMES, BYTES = "notes", "names of labels", "columns with bytes for texts"
FEW = 20


def read_table(
    path: Path,
    columns: Sequence[str],
    media: Collection[str] = (),
    *,
    optional: Collection[str] = (),
    texts: Collection[str] = (),
) -> pd.DataFrame:
    """Read the named columns as text; a missing cell becomes an empty string.

    Literal words such as NA or null stay text. Numbers become their plain form (1, not 1.0), lists and objects JSON.

    Guarantee: how a cell is read depends on that cell alone, whatever other rows hold.

    Args:
        path: the table.
        columns: names of the columns to read.
        media: those whose cells are files; a cell becomes the file's bytes, empty if there is no such file.
        optional: those that may be missing; their cells are then empty.
        texts: those whose cells should be one text each; lists in them are noted.

    Raises:
        DataError: no such file, an unknown kind of file, an unreadable file, missing or doubled columns, no rows.
    """
    table = open_table(path)
    doubled = [name for name in columns if table.names.count(name) > 1]
    if doubled:
        raise DataError(f"Expected each column of {path} once, got {doubled[0]!r} more than once.")
    missing = [name for name in columns if name not in table.names and name not in optional]
    if missing:
        raise DataError(
            f"Expected a column {missing[0]!r} in {path}, got {_listed(table.names)}.",
            hint=_which_column(missing[0], table.names, columns),
        )
    if not table.rows:
        raise DataError(f"Expected records in {path}, got a table without rows.")
    return as_text(table, columns, media, path, texts)


def as_text(
    table: Source, columns: Sequence[str], media: Collection[str], path: Path, texts: Collection[str] = ()
) -> pd.DataFrame:
    """Return the named columns of a source as text, and media as bytes; a column that is not there is empty."""
    folder = path if path.is_dir() else path.parent
    cells = {name: _cells(table, name) for name in dict.fromkeys(columns)}
    text = pd.DataFrame(
        {
            name: [_media(cell, folder) if name in media else _text(cell) for cell in column]
            for name, column in cells.items()
        },
        dtype=object,
    )
    converted = [
        note
        for name, column in cells.items()
        if name not in media
        for note in _conversions(name, column, plain=name in texts)
    ]
    text.attrs[NOTES], text.attrs[LABEL_NAMES] = (*table.notes, *converted), dict(table.label_names)
    text.attrs[BYTES] = [name for name in texts if name in cells and any(isinstance(c, bytes) for c in cells[name])]
    return text


def notes_on(table: pd.DataFrame) -> tuple[str, ...]:
    """Return how the cells of a table that was read had to be converted, and how many; for its owner's eyes."""
    return tuple(table.attrs.get(NOTES, ()))


def refuse_bytes(table: pd.DataFrame, path: Path) -> None:
    """Refuse a table that was read with bytes in a column of texts: they would be read as Python writes them.

    Raises:
        DataError: there are some.
    """
    for name in table.attrs.get(BYTES, ()):
        raise DataError(
            f"Expected texts in column {name!r} of {path}, got bytes.",
            hint=f"Write the column as text; in pandas: table[{name!r}] = table[{name!r}].str.decode('utf-8').",
        )


def label_names_in(table: pd.DataFrame, column: str) -> dict[str, str]:
    """Return the name of each label that a column has the number of, where the file said so."""
    names = table.attrs.get(LABEL_NAMES, {}).get(column, ())
    return {str(number): name for number, name in enumerate(names)}


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        DataError: no such file, an unknown kind of file, or an unreadable file.
    """
    return open_table(path).names


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


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(repr(name) for name in names[:FEW]) + (", …" if len(names) > FEW else "") if names else "none"


def _which_column(missing: str, names: Sequence[Any], wanted: Sequence[str]) -> str:
    """Return what to do about a column that is missing."""
    name = meant(missing, names)
    if len(names) == 1 and "|" in str(names[0]):
        return f"Its columns seem to be separated by '|'. {SAVE_AS}"
    remedy = f"Where the settings name {missing!r}, name the right column{f', such as {name!r}' if name else ''}."
    if missing in COLUMNS:
        remedy = f'Name the right one in `columns`, as in columns = {{ {missing} = "{name or "review"}" }}.'
    if name is None and not set(wanted) & set(names):
        remedy += " If its first line is a record already, put a line with the columns' names above it."
    return remedy


def _cells(table: Source, name: str) -> Sequence[Any]:
    return table.cells(table.names.index(name)) if name in table.names else [None] * table.rows


def _conversions(name: str, column: Sequence[Any], *, plain: bool) -> list[str]:
    """Return what was converted in a column to become text, and how often; a list if the column is of plain texts."""
    counts = Counter(kind for cell in column if not isinstance(cell, str) and (kind := _conversion(cell, plain=plain)))
    if any(isinstance(cell, list | np.ndarray) for cell in column) and (missing := sum(map(_missing, column))):
        counts["are missing where others are lists, and were read as empty"] = missing
    return [f"Column {name!r}: {count} of {len(column)} cells {kind}." for kind, count in counts.items()]


def _conversion(cell: Any, *, plain: bool) -> str:
    if isinstance(cell, bool | np.bool_):
        return 'are true or false, and were read as "True" or "False"'
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        if abs(float(cell)) >= LARGEST_EXACT:
            return f"are fractions from {LARGEST_EXACT} on, which may stand for a neighbour too: keep ids as text"
        return 'are fractions without decimals, and were read as whole numbers ("1" for 1.0)'
    if isinstance(cell, dict):
        return "are objects, not texts, and were read as their JSON"
    if plain and isinstance(cell, list | np.ndarray):
        return "are lists, not texts, and were read as their JSON"
    return "are bytes, not texts, and were read as Python writes them" if isinstance(cell, bytes) else ""


def _text(cell: Any) -> str:
    if _missing(cell):
        return ""
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    if isinstance(cell, dict | list | np.ndarray):
        return json.dumps(cell, ensure_ascii=False, default=_plain)
    return str(cell)


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell) or cell is pd.NA


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
