"""What a node keeps for secure sums: made once, private, and gone with the run."""

from pathlib import Path

import pytest

from client.vault.secure_sum.sum_files import SumFiles
from shared.errors import LedgerError
from shared.secure_sum.node import MaskedRow
from shared.secure_sum.refusals import SecureSumError
from tests.support.sum_nodes import RUN

ROW = MaskedRow(RUN, 1, "training", bytes(32), b"", bytes(66))


@pytest.fixture
def files(tmp_path: Path) -> SumFiles:
    return SumFiles(tmp_path / "secure_sum")


def written(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.guarantee("a run's keys are made once, and stay, also where they cannot be read.")
def test_keys_are_made_once_and_not_anew_where_they_are_damaged(files: SumFiles, tmp_path: Path) -> None:
    first, again = files.make(RUN, "north", b"key"), files.make(RUN, "north", b"key")
    assert first is not None and again is not None and first.entry == again.entry
    (path,) = written(tmp_path)
    path.write_bytes(b"damaged")
    assert files.identity(RUN) is None and files.make(RUN, "north", b"key") is None and path.read_bytes() == b"damaged"
    other = files.make("r-2", "north", b"key")
    assert other is not None and other.entry.keys != first.entry.keys


def test_all_of_it_is_this_users_alone(files: SumFiles, tmp_path: Path) -> None:
    files.make(RUN, "north", b"key")
    files.keep_part(ROW)
    assert {path.stat().st_mode & 0o777 for path in written(tmp_path)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secure_sum").rglob("*") if path.is_dir()} == {0o700}
    assert (tmp_path / "secure_sum").stat().st_mode & 0o777 == 0o700


def test_a_round_has_one_mask(files: SumFiles) -> None:
    files.keep_part(ROW)
    with pytest.raises(LedgerError, match="one mask for round 1"):
        files.keep_part(ROW)
    assert files.part(RUN, 1, "training") == ROW
    assert files.part(RUN, 2, "training") is None and files.part(RUN, 1, "evaluation") is None


def test_a_run_that_is_forgotten_leaves_nothing_and_others_stay(files: SumFiles, tmp_path: Path) -> None:
    for run in (RUN, "r-2"):
        files.make(run, "north", b"key")
    files.keep_part(ROW)
    files.forget(RUN)
    files.forget("r-3")
    assert not files.holds(RUN) and files.identity(RUN) is None and files.holds("r-2") and len(written(tmp_path)) == 1


@pytest.mark.parametrize(("name", "key"), [("n" * 256, b"key"), ("north", bytes(257))])
def test_a_name_or_key_that_no_roster_takes_makes_no_keys(
    files: SumFiles, tmp_path: Path, name: str, key: bytes
) -> None:
    with pytest.raises(SecureSumError):
        files.make(RUN, name, key)
    assert written(tmp_path) == []


def test_a_file_that_goes_while_it_is_looked_at_is_no_fault(
    files: SumFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.make("r-1", "north", b"key")
    gone = tmp_path / "gone"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    assert files.last_change("r-1") == 0
