"""What is written is whole, durable and as private as it should be, whatever was there before."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.files import (
    append_private,
    complete_folder,
    named_after,
    private_file,
    private_folder,
    write_atomically,
    write_key_pair,
    write_private,
    write_private_once,
)
from simulations.experiment.arms import arm_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_through_private_file(path: Path, content: bytes) -> None:
    with private_file(path) as unfinished:
        unfinished.write_bytes(content)


@pytest.mark.parametrize("write", [write_private, write_through_private_file, write_private_once])
def test_a_private_file_is_this_users_alone_from_its_first_byte(
    write: Callable[[Path, bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, fsync = list[int](), os.fsync
    monkeypatch.setattr(os, "fsync", lambda opened: (seen.append(os.fstat(opened).st_mode), fsync(opened)))
    write(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret" and mode(tmp_path / "key") == 0o600
    assert {stat.S_IMODE(found) for found in seen if stat.S_ISREG(found)} == {0o600}
    assert stat.S_ISDIR(seen[-1]), "the folder is on the disk, too"


@pytest.mark.parametrize("write", [write_private, write_through_private_file])
def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(
    write: Callable[[Path, bytes], object], tmp_path: Path
) -> None:
    path = tmp_path / "invite.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write(path, b"new")
    assert path.read_bytes() == b"new" and mode(path) == 0o600


@pytest.mark.parametrize("write", [write_atomically, write_private, write_through_private_file, write_private_once])
def test_a_full_disk_leaves_what_was_there_and_nothing_beside_it(
    write: Callable[[Path, bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(_opened: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == b"old"


def test_of_two_who_make_a_key_the_first_one_wins(tmp_path: Path) -> None:
    assert write_private_once(tmp_path / "key", b"first")
    assert not write_private_once(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first" and len(list(tmp_path.iterdir())) == 1


def test_a_key_is_made_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert write_private_once(tmp_path / "key", b"first") and not write_private_once(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first" and [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_key_and_its_certificate_are_replaced_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "server.key", tmp_path / "server.crt"
    old = os.umask(0)
    try:
        write_key_pair((key, b"key 1"), (certificate, b"certificate 1"))
    finally:
        os.umask(old)
    assert (mode(key), mode(certificate)) == (0o600, 0o644)
    written, fsync = list[int](), os.fsync

    def second_fails(opened: int) -> None:
        written.append(opened)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        fsync(opened)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OSError, match="No space"):
        write_key_pair((key, b"key 2"), (certificate, b"certificate 2"))
    assert (key.read_bytes(), certificate.read_bytes()) == (b"key 1", b"certificate 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]


def test_lines_are_added_to_a_file_that_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\n")
    path.chmod(0o644)
    append_private(path, "two\n")
    assert path.read_text() == "one\ntwo\n" and mode(path) == 0o600


def test_a_private_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "approved" / "run"
    with complete_folder(target, private=True) as folder:
        (folder / "study.json").write_text("{}")
    assert (mode(target.parent), mode(target), mode(target / "study.json")) == (0o700, 0o700, 0o600)
    with pytest.raises(KeyboardInterrupt), complete_folder(target, private=True) as folder:
        (folder / "study.json").write_text("half")
        raise KeyboardInterrupt
    assert (target / "study.json").read_text() == "{}" and [path.name for path in target.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, 0o700, 0o500])
def test_a_folder_that_is_there_becomes_this_users_alone(tmp_path: Path, mode: int) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(mode)
    private_folder(tmp_path / "there")
    private_folder(tmp_path / "new" / "below")
    assert (tmp_path / "there").stat().st_mode & 0o777 == mode & 0o700
    assert (tmp_path / "new" / "below").stat().st_mode & 0o777 == 0o700


def test_another_users_folder_is_refused_where_it_is_open_to_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_ours(_path: Path, _mode: int) -> None:
        raise PermissionError

    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o755)
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o770)
    monkeypatch.setattr(Path, "chmod", not_ours)
    with pytest.raises(SettingsError, match="no other user may enter") as refused:
        private_folder(tmp_path / "there")
    assert "chmod 700" in refused.value.hint
    private_folder(tmp_path / "group")


LOOK_ALIKE = (
    "a b",
    "a-b",
    "a/b",
    "a\\b",
    "../a-b",
    "A b",
    "ä b",
    ".a-b",
    "a-b ",
    "",
    "-",
    "x" * 300,
    "x" * 301,
    "a\0b",
    "..",
)


def test_no_two_names_share_a_file_and_none_leaves_its_folder() -> None:
    for make in (named_after, lambda name: arm_folder(Path("run"), name).name):
        names = [make(name) for name in LOOK_ALIKE]
        assert len({name.lower() for name in names}) == len(LOOK_ALIKE)
        assert all(Path(name).name == name and not name.startswith(".") and len(name) <= 100 for name in names)
    assert named_after("north-clinic_2.0") == "north-clinic_2.0"
