"""What an operator does is done the same way by commands and by the page, and the event log says who did it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.app import cli
from server.operator import actions
from server.run_store.store import Store
from server.settings import Home
from shared.errors import SettingsError
from shared.study.declaration import Study

PAGE = actions.Operator("anna", "127.0.0.1, session ab12")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    folder = tmp_path / "federation"
    assert CliRunner().invoke(cli, ["init", "--host", "localhost", "--home", str(folder)]).exit_code == 0
    return Home(folder)


def test_a_command_is_in_the_event_log_with_who_and_from_where(home: Home, tmp_path: Path) -> None:
    place = ["--home", str(home.folder)]
    assert CliRunner().invoke(cli, ["invite", "north", "--out", str(tmp_path / "north"), *place]).exit_code == 0
    with Store(home.database()) as store:
        (event,) = store.operator_events(most=9)
    assert (event.kind, event.body["node"], event.run) == ("invite", "north", None)
    assert event.body["who"] == actions.this_user() and event.body["from"] == "command line"


def test_what_the_page_asks_for_is_there_beside_it_newest_first(home: Home, make_study: Callable[..., Study]) -> None:
    with Store(home.database()) as store:
        run = actions.queue(store, make_study(), PAGE)
        actions.set_wanted(store, run.id, PAGE, wanted=False)
        actions.set_wanted(store, run.id, PAGE, wanted=True)
        assert [event.kind for event in store.operator_events(most=2)] == ["resume", "stop"]
        assert {event.body["from"] for event in store.operator_events(most=9)} == {PAGE.where}
        assert [event.kind for event in store.events(run.id)] == ["resumed"], "a run's own events are about its rounds"


@pytest.mark.guarantee("an export is whole or is not there, and takes nothing from one that another made meanwhile.")
def test_of_two_exports_into_one_folder_the_first_stays_whole(
    home: Home, tmp_path: Path, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, folder, between = shutil.copytree, tmp_path / "new" / "adapter", list[str]()

    def copies_late(source: Path, target: Path) -> None:
        if not between:  # the other one looks, and exports, before this one begins
            between.append("the other")
            actions.export(home, store, run.id, folder, PAGE)
            assert (folder / "README.md").read_text() == "card"
        copy(source, target)

    with Store(home.database()) as store:
        run = store.create_run(make_study())
        store.set_state(run.id, "finished")
        adapter = home.runs / run.id / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "README.md").write_text("card")
        monkeypatch.setattr(shutil, "copytree", copies_late)
        with pytest.raises(SettingsError, match="a new folder"):
            actions.export(home, store, run.id, folder, PAGE)
        assert [event.kind for event in store.operator_events(most=9)] == ["export"]
    assert (folder / "README.md").read_text() == "card" and list(folder.parent.iterdir()) == [folder]


def test_what_is_refused_leaves_no_event(home: Home, tmp_path: Path, make_study: Callable[..., Study]) -> None:
    with Store(home.database()) as store:
        run = store.create_run(make_study())
        with pytest.raises(SettingsError, match="finished run"):
            actions.export(home, store, run.id, tmp_path / "adapter", PAGE)
        with pytest.raises(SettingsError, match="a node"):
            actions.revoke(home, store, "nobody", PAGE)
        assert store.operator_events(most=9) == []
