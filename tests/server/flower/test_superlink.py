"""Flower's database, when the installed Flower changes."""

from pathlib import Path

import pytest

from server.flower import superlink
from server.flower.superlink import remove_newer_database
from server.settings import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A server that has run: Flower's database is there."""
    found = Home(tmp_path)
    found.flower.mkdir(parents=True)
    for name in ("state.db", "state.db-wal"):
        (found.flower / name).write_text("rows")
    return found


def start_under(flower: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the database's files."""
    monkeypatch.setattr(superlink, "version", lambda name: flower)
    remove_newer_database(home)
    return sorted(path.name for path in home.flower.glob("state.db*"))


def test_a_database_is_kept_by_the_flower_that_wrote_it_and_by_a_newer_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flower in ("1.41.0", "1.41.0", "1.42.0", "1.100.0"):
        assert start_under(flower, home, monkeypatch) == ["state.db", "state.db-wal"]


def test_a_database_that_a_newer_flower_wrote_is_begun_anew_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    start_under("1.42.0", home, monkeypatch)
    assert start_under("1.41.0", home, monkeypatch) == []
    (home.flower / "state.db").write_text("rows")
    assert start_under("1.41.0", home, monkeypatch) == ["state.db"]
