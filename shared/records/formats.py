"""Open a table's file in the format that its name says, and say what else it is if it is something else.

Nothing is guessed about cells. Of a table of text only its first line is looked at: it says what stands between cells.
"""

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from shared.errors import DataError

DEEPEST = 100
"""Brackets within brackets in a row of JSON; a deeper row is read as empty cells, as Python's parser has a limit."""
MOST_DIGITS = 4000
"""Of a whole number in JSON; a longer one stays text, as Python's integers have a limit."""
LARGEST_EXACT = 2**53
"""From here on floats are further apart than whole numbers."""
JSON_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""One that never closes goes to the end: tried again from each of its marks, it would take quadratic time."""
JSON_MARKS = re.compile(rf"{JSON_STRING.pattern}|[][{{}},]", re.DOTALL)
SAVE_AS = "Save it as CSV UTF-8 in the program that made it."
PARQUET, POINTER = "a Parquet file", "a pointer of Git LFS, without the data"
PAGE, OPEN_PAGE = "a web page", "Open it in a browser: it may say why the table was not downloaded."
OTHER_FILES = {
    b"PK\x03\x04": ("an Excel workbook or another zip file", SAVE_AS),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", SAVE_AS),
    b"PAR1": (PARQUET, "Name it so that it ends in .parquet."),
    b"ARROW1": ("an Arrow file", "Save it as Parquet."),
    b"\x1f\x8b": ("a file that gzip packed", "Name it so that it ends in .csv.gz, .tsv.gz, .jsonl.gz or .json.gz."),
    b"SQLite format 3": ("an SQLite database", "Export the table as CSV."),
    b"version https://git-lfs": (POINTER, "Run: git lfs pull"),
    b"%PDF": ("a PDF", "Export the table that it shows as CSV."),
    b"<!DOCTYPE html": (PAGE, OPEN_PAGE),
    b"<!doctype html": (PAGE, OPEN_PAGE),
    b"<html": (PAGE, OPEN_PAGE),
}
"""What a file that begins so is, and what to do with it."""
MOST_NAMES = 20
MARK_BYTES, ENOUGH_BYTES = 32, 200
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
EXCEL_SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
"""Excel writes such a line above the header."""


class Source(NamedTuple):
    """A table as its file holds it."""

    names: list[str]
    """Of its columns, in order; a name may be there twice."""
    rows: int
    cells: Callable[[int], Sequence[Any]]
    """Returns one column's cells, by the column's number."""
    notes: tuple[str, ...] = ()
    """What was found out about the file, for its owner's eyes."""
    label_names: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Names of the labels that a column has the numbers of, where the file says so."""


class NotReadableError(ValueError):
    """A file breaks the rules of its format; the message says where, and what to do."""


def open_table(path: Path) -> Source:
    """Open a table.

    Raises:
        DataError: no such file, an unknown kind of file, or an unreadable one; with where it breaks.
    """
    if path.is_dir():
        return _dataset_folder(path)
    if not path.is_file():
        raise DataError(f"Expected a data file, got {path}, which is not there.", hint="Check the path of `source`.")
    ending = next((ending for ending in _READERS if path.name.lower().endswith(ending)), None)
    if ending is None:
        remedy = SAVE_AS if path.suffix.lower().startswith((".xls", ".ods")) else _other(_start(path))[1]
        raise DataError(f"Expected one of {', '.join(_READERS)} or a dataset folder, got {path.name!r}.", hint=remedy)
    if path.stat().st_size == 0:
        raise DataError(f"Expected records in {path}, got an empty file.")
    try:
        return _READERS[ending](path)
    except DataError:
        raise
    except Exception as error:  # each parser has its own error kinds; all mean that the file is not what it says
        raise DataError(f"Expected a readable {ending} file, got {path}.", hint=_first_line(error)) from error


def _other(start: bytes) -> tuple[str, str]:
    """Return what a file is by its first bytes, and what to do with it; empty if that is not known."""
    return next((kind for mark, kind in OTHER_FILES.items() if start.startswith(mark)), ("", ""))


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MARK_BYTES)


def _text_of(path: Path) -> str:
    """Return a file's text, unpacked if its name ends in .gz.

    Raises:
        DataError: it is no text in UTF-8.
        NotReadableError: it is no file that gzip packed, or ends too early.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise NotReadableError(f"It cannot be unpacked: {_first_line(error)}. Pack it again with gzip.") from None
    kind, remedy = _other(content[:MARK_BYTES])
    if kind and (b"\0" in content[:ENOUGH_BYTES] or kind in (POINTER, PAGE)):
        raise DataError(f"Expected a table of text in {path}, got {kind}.", hint=remedy)
    # a letter and a zero in turn: UTF-16 without its mark
    if content.startswith(UTF_16) or content[:ENOUGH_BYTES].count(0) > len(content[:ENOUGH_BYTES]) // 4:
        encoding = "UTF-32" if content.startswith(UTF_32) else "UTF-16"
        raise DataError(f"Expected UTF-8 text in {path}, got {encoding}.", hint=SAVE_AS)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if kind:
            raise DataError(f"Expected a table of text in {path}, got {kind}.", hint=remedy) from None
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"Expected UTF-8 text in {path}, got other bytes in line {line}.",
            hint=f"It may be Latin-1 or Windows-1252. {SAVE_AS}",
        ) from None


def _delimited(delimiter: str) -> Callable[[Path], Source]:
    def read(path: Path) -> Source:
        text = _text_of(path)
        end = "\n" if "\n" in text else "\r"
        first = text.partition(end)[0].rstrip("\r")
        declared, between, notes = EXCEL_SEPARATOR.fullmatch(first), _between_cells(first, delimiter), tuple[str, ...]()
        if declared:
            text, between = text.partition(end)[2], declared[1]
        if between != delimiter:
            notes = (f"Columns of {path.name} were read as separated by {between!r}, as its first line says.",)
        # the header is read as a row, because pandas would rename doubled columns silently
        try:
            encoded = io.BytesIO(text.encode())
            rows = pd.read_csv(encoded, sep=between, dtype=str, keep_default_na=False, header=None, encoding="utf-8")
        except pd.errors.EmptyDataError:
            raise DataError(f"Expected records in {path}, got only empty lines.") from None
        except pd.errors.ParserError as error:
            raise NotReadableError(_where(error)) from error
        notes += _swallowed(rows, between, path)
        return Source(rows.iloc[0].tolist(), len(rows) - 1, lambda column: rows[column].tolist()[1:], notes)

    return read


def _swallowed(rows: pd.DataFrame, between: str, path: Path) -> tuple[str, ...]:
    """Return a note on lines within cells that look like rows: a quotation mark too many makes them one cell."""
    cells = (cell for column in rows for cell in rows[column] if isinstance(cell, str) and "\n" in cell)
    lines = sum(line.count(between) == rows.shape[1] - 1 for cell in cells for line in cell.split("\n")[1:])
    if rows.shape[1] == 1 or not lines:
        return ()
    return (f"{lines} lines of {path.name} look like rows, but stand within quotation marks and are part of a cell.",)


def _between_cells(header: str, usual: str) -> str:
    """Return what stands between the names of a header: the usual mark, or another one where that is nowhere."""
    return usual if usual in header else next((mark for mark in ";\t," if mark in header), usual)


def _where(error: Exception) -> str:
    message = _first_line(error)
    if cells := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
        return (
            f'Line {cells[2]} has {cells[3]} cells, the header {cells[1]}. A cell with its mark in it needs "quotes".'
        )
    if opened := re.search(r"EOF inside string starting at row (\d+)", message):
        return f'A quotation mark (") opens in row {int(opened[1]) + 1}, the header counted, and never closes.'
    return message


def _json_lines(path: Path) -> Source:
    text = _text_of(path)
    if text.lstrip().startswith("["):
        raise NotReadableError(
            "line 1: a list, not an object. If the file is one list, name it so that it ends in .json."
        )
    lines = text.split("\n")
    return _objects([_json_row(line, f"line {number}") for number, line in enumerate(lines, start=1) if line.strip()])


def _json_array(path: Path) -> Source:
    text = _text_of(path).strip()
    if not (text.startswith("[") and text.endswith("]")):
        raise NotReadableError(
            "It is no list, as in [{...}, {...}]. If each line is an object, name it so that it ends in .jsonl."
        )
    return _objects([_json_row(row, f"record {number}") for number, row in enumerate(_elements(text), start=1)])


def _elements(text: str) -> Iterator[str]:
    """Yield the text of each element of a list, so that each is parsed by itself."""
    depth, start = 0, 1
    for mark in JSON_MARKS.finditer(text):
        if mark[0] in ("[", "{"):
            depth += 1
        elif mark[0] in ("]", "}"):
            depth -= 1
        if (mark[0] == "," and depth == 1) or depth == 0:
            if element := text[start : mark.start()].strip():
                yield element
            start = mark.end()
            if depth == 0:
                break
    if rest := text[start:].strip():
        raise NotReadableError(f"Behind the list's last bracket stands {rest[:20]!r}.")


def _objects(rows: list[dict[str, Any]]) -> Source:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Source(names, len(rows), lambda column: [row.get(names[column]) for row in rows])


def _json_row(text: str, place: str) -> dict[str, Any]:
    if _too_deep(text):
        return {}
    try:
        row = json.loads(
            text, strict=False, parse_int=_integer, parse_float=_fraction, object_pairs_hook=_each_key_once
        )
    except ValueError as error:
        raise NotReadableError(f"{place}: {error}") from None
    if not isinstance(row, dict):
        raise NotReadableError(f"{place}: not an object with a value for each column")
    return row


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's values by key; Python's parser would keep the last of two and drop the other silently."""
    row = dict(pairs)
    if len(row) < len(pairs):
        doubled = Counter(key for key, _value in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {doubled[:40]!r} stands in one object twice: keep one of them")
    return row


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for bracket in re.findall(r"[][{}]", JSON_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            return True
    return False


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits


def _fraction(digits: str) -> float | int | str:
    """Read a number as a float, unless its digits name one that floats round to a neighbour, as of an id."""
    number, (before, _, after) = float(digits), digits.partition(".")
    if abs(number) < LARGEST_EXACT or not after.isdigit():
        return number
    if after.strip("0") or len(before) > MOST_DIGITS:
        return digits
    return number if number == int(before) else int(before)


def _parquet(path: Path) -> Source:
    from pyarrow.parquet import ParquetFile

    kind, remedy = _other(_start(path))
    if kind and kind != PARQUET:
        raise DataError(f"Expected a Parquet file in {path}, got {kind}.", hint=remedy)
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

    names = _label_names(table.schema.metadata or {})
    notes = tuple(
        f"Column {name!r} holds numbers of labels, read as their names unless the study's labels are numbers: "
        + ", ".join(f'"{number}" is {label}' for number, label in enumerate(labels[:MOST_NAMES]))
        + "."
        for name, labels in names.items()
    )
    return Source(list(table.column_names), table.num_rows, cells, notes, names)


def _label_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of labels that Hugging Face's datasets keep beside a table, by the column of their numbers."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        # a list of labels, such as the tags of a sentence, describes its elements
        kinds = {name: feature.get("feature", feature) for name, feature in features.items()}
        return {
            name: tuple(map(str, kind["names"])) for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):  # others may write there what they like
        return {}


def _own(cell: Any) -> Any:
    """Return an Arrow cell as a Python value; one that Python cannot hold, such as the year 10,000, as some text."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        raw = cell.as_buffer().to_pybytes() if hasattr(cell, "as_buffer") else None
        return str(cell.cast("string")) if raw is None else raw.decode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_TEXT: dict[str, Callable[[Path], Source]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".json": _json_array,
}
_READERS = {**_TEXT, ".parquet": _parquet, **{f"{ending}.gz": reader for ending, reader in _TEXT.items()}}
