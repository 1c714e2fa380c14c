"""Files that operators really have, and files that are broken."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from shared.errors import DataError
from shared.records.tables import read_table

FRAME = pd.DataFrame({"text": ["one", "NA", "zwei, drei"], "label": [1, 0, 1]})
WRITERS: dict[str, Callable[[Path], object]] = {
    "t.csv": lambda path: FRAME.to_csv(path, index=False),
    "t.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "t.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "t.parquet": lambda path: FRAME.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_text(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    table = read_table(tmp_path / name, ["text", "label"])
    assert table.values.tolist() == [["one", "1"], ["NA", "0"], ["zwei, drei", "1"]]


def test_dataset_folder_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_pandas(FRAME).save_to_disk(str(tmp_path / "d"))
    assert read_table(tmp_path / "d", ["label"])["label"].tolist() == ["1", "0", "1"]
    datasets.DatasetDict({"train": datasets.Dataset.from_pandas(FRAME)}).save_to_disk(str(tmp_path / "dd"))
    with pytest.raises(DataError, match="train"):
        read_table(tmp_path / "dd", ["label"])


def test_missing_cells_are_empty_and_whole_floats_are_plain(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a", None], "label": [1.0, float("nan")]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", ["text", "label"]).values.tolist() == [["a", "1"], ["", ""]]
    (tmp_path / "t.csv").write_text("text,label\na,1\n,\n")
    assert read_table(tmp_path / "t.csv", ["text", "label"]).values.tolist() == [["a", "1"], ["", ""]]


def test_two_megabyte_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,label\n"' + "long word " * 200_000 + '",1\n')
    assert len(read_table(tmp_path / "t.csv", ["text", "label"])["text"][0]) == 2_000_000


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "missing column": ("t.csv", b"text,tag\na,1\n", "'label'"),
    "doubled column": ("t.csv", b"text,label,label\na,1,2\n", "more than once"),
    "no rows": ("t.csv", b"text,label\n", "without rows"),
    "nothing at all": ("t.csv", b"", "empty file"),
    "not UTF-8": ("t.csv", b"text,label\n\xff\xfe,1\n", "UTF-8"),
    "ragged row": ("t.csv", b"text,label\na,1\nb,1,2,3\n", "readable"),
    "no JSON": ("t.jsonl", b"{text: 1}\n", "readable"),
    "no Parquet": ("t.parquet", b"PAR?", "readable"),
    "unknown ending": ("t.xlsx", b"x", "t.xlsx"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_gets_one_clear_error(tmp_path: Path, case: str) -> None:
    name, content, words = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_table(tmp_path / name, ["text", "label"])


def test_wrong_path_and_wrong_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_table(path, ["text"])
