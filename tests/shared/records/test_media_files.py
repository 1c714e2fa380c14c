"""Files that cells name: whatever a cell says, it is read in bounds or not at all."""

import os
from pathlib import Path

import pytest

from shared.records import media_files
from shared.records.media_files import read_media
from shared.records.tables import read_table


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"pixels")
    assert read_media(tmp_path / "one.png") == b"pixels"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["", ".", "..", "absent", "\x00", "\ud83d", "a" * 5000, "/dev/zero", "/dev/stdin", "pipe"]
)
def test_what_is_no_file_is_missing(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_media(tmp_path / name) == b""


def test_a_file_beyond_the_public_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_files, "MOST_FILE_BYTES", 4)
    (tmp_path / "small").write_bytes(b"1234")
    (tmp_path / "large").write_bytes(b"12345")
    assert read_media(tmp_path / "small") == b"1234" and read_media(tmp_path / "large") == b""


@pytest.mark.timeout(20)
def test_no_name_of_a_file_takes_the_table_along(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"pixels")
    names = ["one.png", "\\u0000", "\\ud83d", "/dev/zero", "one.png"]
    lines = [f'{{"image": "{name}", "label": "a"}}\n' for name in names]
    (tmp_path / "table.jsonl").write_text("".join(lines))
    read = read_table(tmp_path / "table.jsonl", ["image", "label"], ["image"])["image"].tolist()
    assert read == [b"pixels", b"", b"", b"", b"pixels"]
