"""A row that is added changes no other row's cells: in every format, for every type of value."""

import csv
import json
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import DataError
from shared.records.tables import read_table

COLUMNS = ["text", "cell"]
Row = tuple[Any, Any]
SAMPLES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
WORDS = st.sampled_from(
    ["", " ", "NA", "null", "nan", "01", "1.0", "1e5", "-0", "True", "2024-01-01", "9" * 20, '"', "\r"]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT | WORDS
JSON_CELLS = st.recursive(
    SCALARS, lambda c: st.lists(c, max_size=3) | st.dictionaries(TEXT, c, max_size=3), max_leaves=5
)
ARROW_CELLS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float32": (pa.float32(), st.floats(width=32)),
    "float64": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), TEXT | WORDS),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), TEXT | WORDS),
    "date32": (pa.date32(), st.dates()),
    "timestamp[us]": (pa.timestamp("us"), st.datetimes()),
    "timestamp[ns]": (pa.timestamp("ns"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))),
    "decimal": (pa.decimal128(30, 2), st.decimals(-(10**20), 10**20, places=2)),
    "list": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3)),
    "struct": (
        pa.struct({"a": pa.int64(), "b": pa.list_(pa.bool_())}),
        st.fixed_dictionaries(
            {"a": st.none() | st.integers(-(2**63), 2**63 - 1), "b": st.none() | st.lists(st.booleans(), max_size=2)}
        ),
    ),
}


def write_delimited(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerows([COLUMNS, *rows])


def write_json_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows))


def arrow(rows: Sequence[Row], type_: pa.DataType) -> pa.Table:
    texts, cells = (list(column) for column in zip(*rows, strict=True))
    return pa.table({"text": pa.array(texts, pa.string()), "cell": pa.array(cells, type_)})


def check(path: Path, write: Callable[[Path, Sequence[Row]], None], rows: Sequence[Row], place: int) -> None:
    """Hold a table without the row at `place` to the table with it, cell by cell; each row alone, too."""

    def read(part: Sequence[Row]) -> list[list[str]]:
        write(path, part)
        cells: list[list[str]] = read_table(path, COLUMNS, optional=["cell"]).values.tolist()
        return cells

    place %= len(rows)
    whole = read(rows)
    assert read([*rows[:place], *rows[place + 1 :]]) == [*whole[:place], *whole[place + 1 :]]
    assert [read([row])[0] for row in rows] == whole


@pytest.mark.guarantee("how a cell is read depends on that cell alone, whatever other rows hold.")
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@SAMPLES
@given(rows=st.lists(st.tuples(TEXT | WORDS, TEXT | WORDS), min_size=2, max_size=5), place=st.integers(0, 4))
def test_a_row_changes_no_cell_of_delimited_text(tmp_path: Path, suffix: str, rows: list[Row], place: int) -> None:
    check(tmp_path / f"t.{suffix}", write_delimited, rows, place)
    write_delimited(tmp_path / f"t.{suffix}", rows)
    assert [tuple(row) for row in read_table(tmp_path / f"t.{suffix}", COLUMNS).values] == rows


@pytest.mark.guarantee("how a cell is read depends on that cell alone, whatever other rows hold.")
@SAMPLES
@given(rows=st.lists(st.tuples(JSON_CELLS, JSON_CELLS), min_size=2, max_size=5), place=st.integers(0, 4))
def test_a_row_changes_no_cell_of_json_lines(tmp_path: Path, rows: list[Row], place: int) -> None:
    check(tmp_path / "t.jsonl", write_json_lines, rows, place)


@pytest.mark.guarantee("how a cell is read depends on that cell alone, whatever other rows hold.")
@pytest.mark.parametrize("kind", ARROW_CELLS)
@pytest.mark.parametrize("form", ["parquet", "folder"])
@settings(SAMPLES, max_examples=10)
@given(data=st.data(), place=st.integers(0, 4))
def test_a_row_changes_no_cell_of_arrow_tables(
    tmp_path: Path, form: str, kind: str, data: st.DataObject, place: int
) -> None:
    import datasets

    type_, cells = ARROW_CELLS[kind]
    rows = data.draw(st.lists(st.tuples(TEXT, st.none() | cells), min_size=2, max_size=5))

    def write(path: Path, part: Sequence[Row]) -> None:
        if form == "parquet":
            pq.write_table(arrow(part, type_), path)
        else:
            datasets.Dataset(arrow(part, type_)).save_to_disk(str(path))

    if form == "folder":
        datasets.disable_progress_bars()
    check(tmp_path / ("t.parquet" if form == "parquet" else "folder"), write, rows, place)


SPELLED: dict[str, tuple[Any, str]] = {
    "64-bit id": (9007199254740993, "9007199254740993"),
    "beyond 64 bits": (2**64 + 1, "18446744073709551617"),
    "whole float": (3.0, "3"),
    "fraction": (0.1, "0.1"),
    "boolean": (True, "True"),
    "nothing": (None, ""),
    "list": (["a", None, 1.0, True], '["a", null, 1.0, true]'),
    "object": ({"en": "é", "ids": [2**60 + 1]}, '{"en": "é", "ids": [1152921504606846977]}'),
    "word that looks like nothing": ("NA", "NA"),
    "date": ("2024-01-02", "2024-01-02"),
}


@pytest.mark.parametrize("others", [[], [None], ["x"], [0.5], [[1]], [{"a": 1}], [2**70]])
@pytest.mark.parametrize("case", SPELLED)
def test_json_values_keep_their_spelling(tmp_path: Path, case: str, others: list[Any]) -> None:
    value, spelling = SPELLED[case]
    # pandas turns columns of such a name into dates
    path, column = tmp_path / "t.jsonl", "date"
    path.write_text("".join(json.dumps({"text": "a", column: cell}) + "\n" for cell in [value, *others]))
    assert read_table(path, [column])[column][0] == spelling


NUMBERS = {
    "9007199254740992.0": "9007199254740992",
    "9007199254740993.0": "9007199254740993",
    "-9007199254740993.00": "-9007199254740993",
    "9007199254740993.5": "9007199254740993.5",
    "1e3": "1000",
    "9007199254740991.0": "9007199254740991",
    "[9007199254740994.0, 1e23]": "[9007199254740994.0, 1e+23]",
}


@pytest.mark.parametrize("written", NUMBERS)
def test_a_number_that_no_float_holds_is_not_taken_for_its_neighbour(tmp_path: Path, written: str) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"id": {written}}}\n')
    assert read_table(tmp_path / "t.jsonl", ["id"])["id"][0] == NUMBERS[written]


def test_arrow_values_keep_their_spelling(tmp_path: Path) -> None:
    cells: dict[str, tuple[pa.DataType, Any, str]] = {
        "id": (pa.int64(), 9007199254740993, "9007199254740993"),
        "flag": (pa.bool_(), True, "True"),
        "day": (pa.date32(), date(2024, 1, 2), "2024-01-02"),
        "moment": (pa.timestamp("us"), datetime(2024, 1, 2, 3, 4, 5), "2024-01-02 03:04:05"),
        "price": (pa.decimal128(9, 2), Decimal("1.50"), "1.50"),
        "ids": (pa.list_(pa.int64()), [2**60 + 1, None], "[1152921504606846977, null]"),
    }
    table = pa.table({name: pa.array([value, None], type_) for name, (type_, value, _) in cells.items()})
    pq.write_table(table, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet", list(cells))
    assert read.values.tolist() == [[spelling for *_, spelling in cells.values()], [""] * len(cells)]


def test_one_patient_without_a_number_renames_no_other(tmp_path: Path) -> None:
    numbers: list[int | None] = [2**60 + i for i in range(50)]
    for path in (tmp_path / "t.jsonl", tmp_path / "t.parquet"):
        read = []
        for rows in (numbers, [*numbers, None]):
            if path.suffix == ".jsonl":
                path.write_text("".join(json.dumps({"patient": number}) + "\n" for number in rows))
            else:
                pq.write_table(pa.table({"patient": pa.array(rows, pa.int64())}), path)
            read.append(read_table(path, ["patient"])["patient"].tolist())
        assert read[0] == list(map(str, numbers)) and read[1] == [*read[0], ""]


HOSTILE: dict[str, str] = {
    "brackets within brackets": '{"text": ' + "[" * 5000 + "]" * 5000 + "}",
    "brackets without an end": '{"text": ' + "[" * 5000,
    "five thousand digits": '{"text": ' + "9" * 5000 + "}",
    "infinity": '{"text": Infinity, "cell": [-Infinity, NaN]}',
    "a number beyond floats": '{"text": 1e999}',
    "half a character": '{"text": "\\ud800"}',
    "a control character": '{"text": "a\tb"}',
    "another table's columns": '{"cell": 1}',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_row_leaves_the_others_as_they_are(tmp_path: Path, case: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "first"}\n' + HOSTILE[case] + '\n{"text": "last"}\n')
    assert read_table(path, ["text"])["text"].tolist()[::2] == ["first", "last"]


def test_an_arrow_cell_that_python_cannot_hold_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    texts = pa.array([b"first", b"\xff", b"last"]).view(pa.string())
    moments = pa.array([0, 2**50, 0], pa.int64()).view(pa.timestamp("s"))
    pq.write_table(pa.table({"text": texts, "cell": moments}), tmp_path / "t.parquet")
    cells = read_table(tmp_path / "t.parquet", COLUMNS).values.tolist()
    assert cells[::2] == [["first", "1970-01-01 00:00:00"], ["last", "1970-01-01 00:00:00"]]


@pytest.mark.parametrize("line", ['{"text": "a', "[1]", "3", '{"text": "a"} {"text": "b"}'])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(DataError) as raised:
        read_table(tmp_path / "t.jsonl", ["text"])
    assert raised.value.hint.startswith("line 3: ")


def test_cells_stay_python_strings_that_any_text_fits_in(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "\\ud800"}\n')
    table = read_table(tmp_path / "t.jsonl", ["text"])
    assert isinstance(table, pd.DataFrame) and table["text"].tolist() == ["\ud800"]
