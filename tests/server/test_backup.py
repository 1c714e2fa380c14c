"""A server's backup: whole or not at all, private, and what is restored from it runs."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

import server.backup
from server.backup import back_up, restore
from server.certificate_authority import issue_server
from server.cli.app import cli
from server.rounds.checkpoints import Checkpoints, State
from server.run_store.store import Store
from server.settings import Home
from shared.errors import RunError, SettingsError
from shared.study.declaration import Study
from tests.support.stores import filled, held

MakeStudy = Callable[..., Study]


@pytest.fixture
def home(tmp_path: Path, make_study: MakeStudy) -> Home:
    """A server with a run under way."""
    folder = tmp_path / "federation"
    assert CliRunner().invoke(cli, ["init", "--host", "127.0.0.1", "--home", str(folder)]).exit_code == 0
    home = Home(folder)
    home.secret()
    with Store(home.database()) as store:
        run = filled(store, make_study)
    Checkpoints(home.runs / run / "checkpoints").save(State("study", run, 2, np.arange(5, dtype=np.float32)))
    for name in ("logs/gateway.log", "flower/state.db", "cache/x", "run/state.json", "own.csv", "keys/.a.7.7.new"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return home


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.guarantee("a backup is readable by this user alone, and is there whole or not at all.")
def test_a_backup_is_private_and_there_whole_or_not_at_all(home: Home, tmp_path: Path, monkeypatch: Any) -> None:
    old = os.umask(0)
    try:
        back_up(home, tmp_path / "kept.tgz")
    finally:
        os.umask(old)
    assert (tmp_path / "kept.tgz").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="Expected a new file"):
        back_up(home, tmp_path / "kept.tgz")
    with pytest.raises(SettingsError, match="outside the server's folder"):
        back_up(home, home.folder / "kept.tgz")
    honest = server.backup._add
    for cut_at in range(4):
        added: list[str] = []

        def full_disk(tar: Any, name: str, file: Any, cut_at: int = cut_at, added: list[str] = added) -> str:
            added.append(name)
            if len(added) > cut_at:
                raise OSError(28, "No space left on device")
            return honest(tar, name, file)

        monkeypatch.setattr(server.backup, "_add", full_disk)
        with pytest.raises(RunError, match="No space left"):
            back_up(home, tmp_path / "cut.tgz")
    assert sorted(path.name for path in tmp_path.glob("*.tgz*")) == ["kept.tgz"]


def test_what_is_restored_runs(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "kept.tgz")
    made = CliRunner().invoke(cli, ["restore", str(tmp_path / "kept.tgz"), "--home", str(tmp_path / "new")])
    assert made.exit_code == 0 and "fedvault-server start" in made.stdout
    restored = Home(tmp_path / "new")
    assert held(restored.database()) == held(home.database())
    before, after = contents(home.folder), contents(restored.folder)
    kept = {name for name in before if name.split("/")[0] in ("keys", "runs", "server.toml", "own.csv")}
    kept = {name for name in kept if not name.endswith(".new")}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name.split("/")[0] for name in after.keys() - kept} <= {"fedvault.db", "fedvault.db-wal", "fedvault.db-shm"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [restored.folder, *restored.folder.rglob("*")])
    (run,) = restored.runs.iterdir()
    state = Checkpoints(run / "checkpoints").latest(study_sha256="study", study_run=run.name)
    assert state is not None and state.round == 2 and state.adapter.tolist() == [0, 1, 2, 3, 4]
    assert restored.secret() == home.secret()
    issue_server(restored.keys, restored.settings().hosts)  # the authority is there, with its key


def test_a_containers_volume_is_filled_where_it_is(home: Home, tmp_path: Path, monkeypatch: Any) -> None:
    back_up(home, tmp_path / "backup.tgz")
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    before, moved = volume.stat().st_ino, list[str]()
    rename = Path.rename

    def recording(path: Path, target: Path) -> Path:
        if target.parent == volume:
            moved.append(target.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    monkeypatch.setattr(Path, "rename", recording)
    restore(Home(volume), tmp_path / "backup.tgz")
    restore(Home(tmp_path / "folder"), tmp_path / "backup.tgz")
    assert volume.stat().st_ino == before and moved[-1] == "server.toml"
    names = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (volume, tmp_path / "folder")
    ]
    assert names[0] == names[1]


def test_a_folder_that_holds_something_is_left_alone(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "kept.tgz")
    before = contents(home.folder)
    with pytest.raises(SettingsError, match="Expected an empty folder"):
        restore(home, tmp_path / "kept.tgz")
    assert contents(home.folder) == before
    (tmp_path / "empty").mkdir(mode=0o755)
    restore(Home(tmp_path / "empty"), tmp_path / "kept.tgz")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700


@pytest.mark.guarantee("nothing is restored unless every file of the backup is as its manifest says.")
def test_a_backup_with_any_damage_leaves_nothing_behind(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "kept.tgz")
    whole = (tmp_path / "kept.tgz").read_bytes()
    unpacked = gzip.decompress(whole)
    damaged = {"empty": b"", "text": b"no backup", "a folder's archive": gzip.compress(bytes(10240))}
    for share in (1, 3, 5, 7, 9):
        damaged[f"cut at {share}/10"] = whole[: len(whole) * share // 10]
        place = len(unpacked) * share // 10
        changed = unpacked[:place] + bytes([unpacked[place] ^ 1]) + unpacked[place + 1 :]
        if changed[place - place % 512 :][:512].strip(b"\0"):  # padding says nothing
            damaged[f"changed at {share}/10"] = gzip.compress(changed)
    damaged["without a file"] = rewritten(unpacked, leave_out="authority.key")
    damaged["with a file more"] = rewritten(unpacked, add="home/keys/more")
    damaged["a file elsewhere"] = rewritten(unpacked, add="../elsewhere")
    for what, written in damaged.items():
        (tmp_path / "damaged.tgz").write_bytes(written)
        with pytest.raises(SettingsError, match="Expected a whole backup"):
            restore(Home(tmp_path / "new"), tmp_path / "damaged.tgz")
        assert sorted(path.name for path in tmp_path.iterdir() if "federation" not in path.name) == [
            "damaged.tgz",
            "kept.tgz",
        ], what
    with pytest.raises(SettingsError, match="not there"):
        restore(Home(tmp_path / "new"), tmp_path / "absent.tgz")


def rewritten(tar: bytes, *, leave_out: str = "-", add: str = "") -> bytes:
    """Return a backup with a file less or a file more, its manifest unchanged."""
    written = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar)) as source, tarfile.open(fileobj=written, mode="w:gz") as target:
        if add:
            target.addfile(tarfile.TarInfo(add))
        for member in source:
            if not member.name.endswith(leave_out):
                target.addfile(member, source.extractfile(member))
    return written.getvalue()


def test_a_newer_versions_backup_is_refused_in_words(home: Home, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(server.backup, "VERSION", 2)
    back_up(home, tmp_path / "newer.tgz")
    monkeypatch.undo()
    with pytest.raises(SettingsError, match="version 1, got version 2") as refused:
        restore(Home(tmp_path / "new"), tmp_path / "newer.tgz")
    assert "Update this one" in refused.value.hint
    back_up(home, tmp_path / "kept.tgz")
    honest = server.backup._unpack

    def newer_store(file: Path, folder: Path) -> str:
        made = honest(file, folder)
        engine = create_engine(f"sqlite:///{folder / server.backup.STORE}")
        with engine.begin() as connection:
            connection.execute(text("UPDATE meta SET value = '99'"))
        engine.dispose()
        return made

    monkeypatch.setattr(server.backup, "_unpack", newer_store)
    with pytest.raises(RunError, match="run store of version"):
        restore(Home(tmp_path / "new"), tmp_path / "kept.tgz")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("step", ["_with_database", "_restore_store", "_unpack"])
def test_a_fault_while_restoring_leaves_nothing_half_written(
    home: Home, tmp_path: Path, monkeypatch: Any, step: str
) -> None:
    back_up(home, tmp_path / "kept.tgz")
    honest = getattr(server.backup, step)

    def cut_off(*given: Any) -> None:
        honest(*given)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.backup, step, cut_off)
    with pytest.raises(RunError, match="No space left"):
        restore(Home(tmp_path / "new"), tmp_path / "kept.tgz", database="")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))
    monkeypatch.undo()
    restore(Home(tmp_path / "new"), tmp_path / "kept.tgz")
    assert held(Home(tmp_path / "new").database()) == held(home.database())


def test_the_run_store_may_lie_elsewhere(home: Home, tmp_path: Path, make_study: MakeStudy) -> None:
    elsewhere, inside = f"sqlite:///{tmp_path / 'store.db'}", f"sqlite:///{home.folder / 'deep' / 'store.db'}"
    for number, url in enumerate((elsewhere, inside)):
        home.config.write_text(f'hosts = ["a"]\ndatabase = {json.dumps(url)}\n')
        with Store(url) as store:
            filled(store, make_study)
        back_up(home, tmp_path / f"{number}.tgz")
    with pytest.raises(SettingsError, match="Expected an empty database"):
        with Store(elsewhere) as store:
            store.record_event("later", {}, run="r")
        restore(Home(tmp_path / "new"), tmp_path / "0.tgz")
    assert not (tmp_path / "new").exists()
    restore(Home(tmp_path / "new"), tmp_path / "0.tgz", database=f"sqlite:///{tmp_path / 'other.db'}")
    assert held(Home(tmp_path / "new").database())["names"] == held(inside)["names"]
    assert Home(tmp_path / "new").settings().database.endswith("other.db")
    before = held(inside)
    with closing(create_engine(inside).raw_connection()):
        pass
    home.folder.rename(tmp_path / "gone")
    restore(home, tmp_path / "1.tgz")
    assert held(inside) == before
