"""Files as spreadsheets and exports really write them: read, or answered with the line and what to do."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shared.errors import DataError
from shared.records.tables import notes_on, read_table

ROWS = [["good, really", "yes"], ["schlecht 3,0", "no"]]
CSV = 'text,label\n"good, really",yes\n"schlecht 3,0",no\n'
LINES = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
ARRAY = json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1)
READ: dict[str, tuple[str, bytes]] = {
    "byte order mark": ("t.csv", b"\xef\xbb\xbf" + CSV.encode()),
    "byte order mark before JSON": ("t.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
    "semicolons": ("t.csv", b"text;label\ngood, really;yes\nschlecht 3,0;no\n"),
    "Excel's own line": ("t.csv", b"sep=;\r\ntext;label\r\ngood, really;yes\r\nschlecht 3,0;no\r\n"),
    "tabs": ("t.csv", b"text\tlabel\ngood, really\tyes\nschlecht 3,0\tno\n"),
    "old Mac's lines": ("t.csv", b"text;label\rgood, really;yes\rschlecht 3,0;no\r"),
    "a TSV with semicolons": ("t.tsv", b"text;label\ngood, really;yes\nschlecht 3,0;no\n"),
    "packed CSV": ("t.csv.gz", gzip.compress(CSV.encode())),
    "packed JSON lines": ("t.JSONL.GZ", gzip.compress(LINES.encode())),
    "JSON list": ("t.json", ARRAY.encode()),
    "packed JSON list": ("t.json.gz", gzip.compress(ARRAY.encode())),
}


@pytest.mark.parametrize("case", READ)
def test_tables_are_read_as_they_are_exported(tmp_path: Path, case: str) -> None:
    name, content = READ[case]
    (tmp_path / name).write_bytes(content)
    assert read_table(tmp_path / name, ["text", "label"]).values.tolist() == ROWS


def test_a_separator_that_the_name_does_not_say_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text;label\na;1\n")
    (note,) = notes_on(read_table(tmp_path / "t.csv", ["text"]))
    assert note == "Columns of t.csv were read as separated by ';', as its first line says."


def test_rows_that_a_quotation_mark_makes_one_cell_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,label\n"a,1\nb,0\nc",1\n"two\nlines",0\n')
    (note,) = notes_on(read_table(tmp_path / "t.csv", ["text"]))
    assert note.startswith("1 lines of t.csv look like rows")


REFUSED: dict[str, tuple[str, bytes, str, str]] = {
    "workbook": ("t.xlsx", b"PK\x03\x04", "t.xlsx", "CSV UTF-8"),
    "workbook with another name": ("t.csv", b"PK\x03\x04\x14\0\x06\0\xff", "Excel workbook", "CSV UTF-8"),
    "old workbook": ("t.csv", b"\xd0\xcf\x11\xe0\xa1\0", "old Excel", "CSV UTF-8"),
    "Parquet called CSV": ("t.csv", b"PAR1\x15\0\x15", "a Parquet file", r"\.parquet"),
    "packed without saying so": ("t.csv", gzip.compress(b"text\na\n"), "gzip packed", r"\.csv\.gz"),
    "not packed": ("t.csv.gz", b"text\na\n", "readable .csv.gz", "unpacked"),
    "packed and cut off": ("t.csv.gz", gzip.compress(b"text\na\n")[:-9], "readable", "unpacked"),
    "pointer of Git LFS": ("t.jsonl", b"version https://git-lfs.github.com/spec/v1\noid x\n", "Git LFS", "lfs pull"),
    "UTF-16": ("t.csv", "text,label\na,1\n".encode("utf-16"), "got UTF-16", "CSV UTF-8"),
    "UTF-16 without a mark": ("t.csv", "text,label\na,1\n".encode("utf-16-le"), "got UTF-16", "CSV UTF-8"),
    "UTF-32": ("t.csv", "text,label\na,1\n".encode("utf-32"), "got UTF-32", "CSV UTF-8"),
    "web page": ("t.csv", b"<!DOCTYPE html>\n<html><body>404, not found</body></html>\n", "a web page", "browser"),
    "web page called JSON lines": ("t.jsonl", b"<html></html>\n", "a web page", "browser"),
    "strokes": ("t.csv", b"text|label\na|1\n", r"got 'text\|label'", r"separated by '\|'.*CSV UTF-8"),
    "Latin-1": ("t.csv", "text,label\na,1\nschön,2\n".encode("latin-1"), "in line 3", "Latin-1"),
    "Latin-1 in JSON": ("t.jsonl", '{"text": "a"}\n{"text": "ö"}'.encode("latin-1"), "in line 2", "Latin-1"),
    "one cell too many": ("t.csv", b"text,label\na,1\nb, c,1\n", "readable", "Line 3 has 3 cells, the header 2"),
    "quotation mark": ("t.csv", b'text,label\na,1\n"b,1\nc,1\n', "readable", "opens in row 3"),
    "only empty lines": ("t.csv", b"\n\n", "empty lines", ""),
    "no header": ("t.csv", b"great film,yes\nbad film,no\n", "got 'great film', 'yes'", "first line is a record"),
    "typo": ("t.csv", b"Text ,lable\na,1\n", "got 'Text ', 'lable'", 'text = "Text "'),
    "unfinished line": ("t.jsonl", b'{"text": "a"}\n\n{"text": "b\n', "readable", "line 3: "),
    "lines called list": ("t.json", LINES.encode(), "readable .json", r"\.jsonl"),
    "list called lines": ("t.jsonl", ARRAY.encode(), "readable", "line 1: .*name it so that it ends in .json"),
    "list of texts": ("t.json", b'[{"text": "a"}, "b"]', "readable", "record 2: not an object"),
    "list with more behind": ("t.json", b'[{"text": "a"}] [{"text": "b"}]', "readable", "last bracket"),
    "list without an end": ("t.json", b'[{"text": "a"}, {"text": "b"', "readable", "no list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_named_with_what_to_do(tmp_path: Path, case: str) -> None:
    name, content, words, remedy = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        read_table(tmp_path / name, ["text", "label"], optional=["label"])
    assert re.search(remedy, raised.value.hint)


CONVERTED: dict[str, tuple[Any, str, str]] = {
    "object": ({"en": "a"}, '{"en": "a"}', "2 of 3 cells are objects, not texts"),
    "fraction": (1.0, "1", "2 of 3 cells are fractions without decimals"),
    "large fraction": (2.0**53, "9007199254740992", "2 of 3 cells are fractions from 9007199254740992 on"),
    "truth value": (True, "True", "2 of 3 cells are true or false"),
    "bytes": (b"a", "b'a'", "2 of 3 cells are bytes, not texts"),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_conversions_are_counted_and_told(tmp_path: Path, case: str) -> None:
    cell, spelling, words = CONVERTED[case]
    pd.DataFrame({"text": [cell, None, cell]}).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", ["text"])
    assert table["text"].tolist() == [spelling, "", spelling]
    assert [words in note for note in notes_on(table)] == [True]


def test_lists_in_a_column_of_texts_and_gaps_between_lists_are_counted(tmp_path: Path) -> None:
    cells = {"text": [["a", "b"], ["c"], None], "label": [["x"], None, []]}
    pd.DataFrame(cells).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", ["text", "label"], texts=["text"])
    assert table["text"].tolist() == ['["a", "b"]', '["c"]', ""] and table["label"].tolist() == ['["x"]', "", "[]"]
    assert notes_on(table) == (
        "Column 'text': 2 of 3 cells are lists, not texts, and were read as their JSON.",
        "Column 'text': 1 of 3 cells are missing where others are lists, and were read as empty.",
        "Column 'label': 1 of 3 cells are missing where others are lists, and were read as empty.",
    )


def test_numbers_of_named_labels_are_explained(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    named = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]})
    named = named.cast_column("label", datasets.ClassLabel(names=["neg", "pos"]))
    named.to_parquet(tmp_path / "t.parquet")
    named.save_to_disk(str(tmp_path / "folder"))
    for path in (tmp_path / "t.parquet", tmp_path / "folder"):
        table = read_table(path, ["text", "label"])
        assert table["label"].tolist() == ["1", "0"]
        (note,) = notes_on(table)
        assert note.startswith("Column 'label' holds numbers of labels") and note.endswith('"0" is neg, "1" is pos.')


def test_a_text_that_never_closes_is_named_in_time_linear_in_its_length(tmp_path: Path) -> None:
    # tried again from each of its marks, it would take hours
    (tmp_path / "t.json").write_text('[{"text": "' + '\\"' * 1_000_000)
    with pytest.raises(DataError):
        read_table(tmp_path / "t.json", ["text"])
    (tmp_path / "list.json").write_text('[{"text": "' + '\\"' * 1_000_000 + "]")
    with pytest.raises(DataError):
        read_table(tmp_path / "list.json", ["text"])


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("t.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', "line 2"),
        ("t.jsonl", '{"text": "a"}\n\n{"text": {"x": 1, "x": 2}}\n', "line 3"),
        ("t.json", '[{"text": "a"}, {"text": "b", "text": "c"}]', "record 2"),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_its_line(tmp_path: Path, name: str, content: str, place: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as refused:
        read_table(tmp_path / name, ["text"])
    assert f"{place}: the key " in str(refused.value.hint) and "twice" in str(refused.value.hint)
