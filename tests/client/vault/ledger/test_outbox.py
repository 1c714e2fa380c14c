"""Released bytes are kept for as long as somebody may ask for them, and no longer."""

import errno
import os
import time
from pathlib import Path

import pytest

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.outbox import DAY_S, KEPT_S, NEWEST_KEPT_S, Outbox
from shared.privacy.releases import SubsampledGaussian
from tests.support.ledgers import register

NOW = 2e9
ROUNDS = range(1, 8)


def rounds_left(folder: Path, *, age_s: float, going_on: set[str]) -> list[int]:
    """Release seven rounds, let so much time pass, prune, and return the rounds that are still there."""
    folder.mkdir(exist_ok=True)
    outbox = Outbox(folder / "outbox")
    for number in ROUNDS:
        outbox.keep("run", number, b"released")
    for file in (folder / "outbox").iterdir():
        os.utime(file, (NOW - age_s, NOW - age_s))
    outbox.prune({"run": ROUNDS, "another": [1]}, going_on, NOW)
    return [number for number in ROUNDS if outbox.find("run", number) is not None]


@pytest.mark.guarantee("what a crash of node or server may have asked again is never deleted.")
@pytest.mark.parametrize(
    ("age_s", "over", "going_on"),
    [
        (KEPT_S - DAY_S, list(ROUNDS), list(ROUNDS)),
        (KEPT_S + DAY_S, [5, 6, 7], [5, 6, 7]),
        (NEWEST_KEPT_S + DAY_S, [], [5, 6, 7]),
        (-DAY_S, list(ROUNDS), list(ROUNDS)),
    ],
    ids=["a week", "older", "three months", "dated ahead"],
)
def test_old_rounds_go_and_what_a_crash_needs_stays(
    tmp_path: Path, age_s: float, over: list[int], going_on: list[int]
) -> None:
    assert rounds_left(tmp_path / "over", age_s=age_s, going_on=set()) == over
    assert rounds_left(tmp_path / "going-on", age_s=age_s, going_on={"run"}) == going_on


def test_an_outbox_that_is_not_there_or_cannot_be_changed_stops_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Outbox(tmp_path / "outbox").prune({}, set(), NOW)

    def read_only(_path: Path, *, missing_ok: bool = False) -> None:
        if not missing_ok:
            raise PermissionError

    monkeypatch.setattr(Path, "unlink", read_only)
    assert rounds_left(tmp_path, age_s=NEWEST_KEPT_S + DAY_S, going_on=set()) == list(ROUNDS)


def test_a_ledgers_open_run_keeps_its_newest_rounds_and_a_closed_one_forgets_in_time(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "second" / "head.json") as ledger:
        register(ledger, "data", epsilon=9.0, delta=1e-5)
        ledger.approve("data", "run", study_sha256="s" * 64, rounds=8, per_round=SubsampledGaussian(2.0, 0.05, 1))
        for number in ROUNDS:
            ledger.reserve("run", number)
            ledger.commit("run", number, b"released")
        for file in (tmp_path / "outbox").iterdir():
            os.utime(file, (0, 0))
        ledger.prune_outbox()
        kept = [number for number in ROUNDS if ledger.answer("run", number) is not None]
        assert kept == [5, 6, 7] and ledger.released_files_to_back_up() == set((tmp_path / "outbox").iterdir())
        ledger.close_run("run")
        ledger.prune_outbox()
        assert list((tmp_path / "outbox").iterdir()) == [] and ledger.released_files_to_back_up() == set()
        assert time.time() > NOW - 10 * 365 * DAY_S


def test_what_a_run_released_in_its_last_round_is_backed_up_for_a_week(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db", second_copy=tmp_path / "second" / "head.json") as ledger:
        register(ledger, "data", epsilon=9.0, delta=1e-5)
        ledger.approve("data", "run", study_sha256="s" * 64, rounds=5, per_round=SubsampledGaussian(2.0, 0.05, 1))
        for number in range(1, 6):
            ledger.reserve("run", number)
            ledger.commit("run", number, b"released %d" % number)
        names = [file.read_bytes() for file in ledger.released_files_to_back_up()]
        assert sorted(names) == [b"released 3", b"released 4", b"released 5"]
        for file in (tmp_path / "outbox").iterdir():
            os.utime(file, (time.time() - KEPT_S - DAY_S,) * 2)
        assert ledger.released_files_to_back_up() == set()


def test_a_folder_that_cannot_be_looked_at_is_pruned_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError(errno.EIO, "the disk does not answer")

    monkeypatch.setattr(Path, "glob", broken)
    Outbox(tmp_path).prune({"run": [1]}, {"run"}, NOW)
