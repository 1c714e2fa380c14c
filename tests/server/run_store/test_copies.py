"""A copy of a run store holds what the store held, whatever database it came from or goes to."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import server.run_store.copies
from server.run_store.copies import load_copy, save_copy
from server.run_store.store import Store
from shared.errors import RunError, SettingsError
from shared.protocol.messages import LedgerPosition
from shared.study.declaration import Study
from tests.support.rounds import RECORDS
from tests.support.stores import filled, held

Studies = Callable[..., Study]


def test_a_copy_holds_everything_and_goes_into_another_database(
    url: str, store: Store, tmp_path: Path, make_study: Studies
) -> None:
    filled(store, make_study)
    save_copy(url, tmp_path / "copy.db")
    assert held(f"sqlite:///{tmp_path / 'copy.db'}") == held(url)


def test_a_restored_store_goes_on_where_the_other_was(url: str, tmp_path: Path, make_study: Studies) -> None:
    origin = f"sqlite:///{tmp_path / 'origin.db'}"
    with Store(origin) as store:
        run = filled(store, make_study)
    save_copy(origin, tmp_path / "copy.db")
    load_copy(tmp_path / "copy.db", url)
    assert held(url) == held(origin)
    load_copy(tmp_path / "copy.db", url)  # as after a crash between the database and the folder
    with Store(url) as restored:
        restored.record_event("later", {}, run=run)
        assert [event.kind for event in restored.events(run)][-1] == "later", "numbers go on after the copied ones"
    with pytest.raises(SettingsError, match="Expected an empty database"):
        load_copy(tmp_path / "copy.db", url)


def test_a_copy_is_of_one_moment(url: str, store: Store, tmp_path: Path, monkeypatch: Any, make_study: Studies) -> None:
    run = filled(store, make_study)
    honest = server.run_store.copies._copy

    def while_others_write(reading: Any, writing: Any) -> None:
        reading.execute(text("SELECT 1 FROM runs")).all()
        store.record_round(run, RECORDS[0].as_dict() | {"round": 9}, None)
        honest(reading, writing)

    monkeypatch.setattr(server.run_store.copies, "_copy", while_others_write)
    save_copy(url, tmp_path / "copy.db")
    assert len(held(f"sqlite:///{tmp_path / 'copy.db'}")["rounds"]) == len(RECORDS)


def test_a_fault_while_a_database_is_filled_leaves_it_empty(
    url: str, tmp_path: Path, monkeypatch: Any, make_study: Studies
) -> None:
    with Store(f"sqlite:///{tmp_path / 'copy.db'}") as store:
        filled(store, make_study)
    honest = server.run_store.copies._copy

    def cut_off(reading: Any, writing: Any) -> None:
        honest(reading, writing)
        raise KeyboardInterrupt

    monkeypatch.setattr(server.run_store.copies, "_copy", cut_off)
    with pytest.raises(KeyboardInterrupt):
        load_copy(tmp_path / "copy.db", url)
    with Store(url) as untouched:
        assert untouched.runs() == [] and untouched.nodes() == []


def test_a_copy_of_an_older_version_is_migrated_and_of_a_newer_one_refused(
    url: str, tmp_path: Path, make_study: Studies
) -> None:
    file = tmp_path / "copy.db"
    with Store(f"sqlite:///{file}") as store:
        filled(store, make_study)
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE nodes DROP COLUMN ledger_mac"))
        connection.execute(text("UPDATE meta SET value = '2'"))
    engine.dispose()
    load_copy(file, url)
    assert held(url)["position"] == LedgerPosition(10**12, "a" * 64)
    with closing(sqlite3.connect(file)) as database:
        database.executescript("UPDATE meta SET value = '99'")
    with pytest.raises(RunError, match="or older"):
        load_copy(file, url)
