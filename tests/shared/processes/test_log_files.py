"""Logs stay below a size while their process writes on, and are read from their end."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import FedVaultError
from shared.processes.log_files import LOG_BYTES, keep_small, old_log, tail
from shared.processes.supervisor import Supervisor

Printed = Callable[[], list[str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out.splitlines()


def test_the_last_lines_of_every_log_are_shown(tmp_path: Path, printed: Printed) -> None:
    (tmp_path / "a.log").write_text("".join(f"line {i}\n" for i in range(100)))
    (tmp_path / "b.log").write_bytes(b"\xff broken\n")
    tail(tmp_path, follow=False, lines=2)
    assert printed() == ["line 98", "line 99", "\ufffd broken"]


def test_a_log_of_any_size_is_read_from_its_end(tmp_path: Path, printed: Printed) -> None:
    with (tmp_path / "a.log").open("wb") as file:
        file.truncate(2**36)  # a file with a hole: no memory holds it
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\nlast\n")
    tail(tmp_path, follow=False, lines=2)
    assert printed() == ["last but one", "last"]


def test_lines_that_were_put_aside_a_moment_ago_are_shown_as_well(tmp_path: Path, printed: Printed) -> None:
    (tmp_path / "a.log.1").write_text("1\n2\n3\n")
    (tmp_path / "a.log").write_text("4\n")
    tail(tmp_path, follow=False, lines=3)
    assert printed() == ["2", "3", "4"]


def test_who_follows_a_log_misses_no_line_when_it_is_put_aside(
    tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, shown = tmp_path / "a.log", list[str]()
    log.write_text("1\n2\n")

    def writes_on(_seconds: float) -> None:
        shown.extend(printed())
        if len(shown) == 2:
            log.write_text("1\n2\n3\n4\n")
            keep_small(tmp_path, log_bytes=1)
            log.write_text("5\n")
        elif len(shown) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", writes_on)
    with pytest.raises(KeyboardInterrupt):
        tail(tmp_path, follow=True)
    assert shown == ["1", "2", "3", "4", "5"]


def test_no_logs_are_an_answer_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(FedVaultError, match="Expected logs in") as raised:
        tail(tmp_path / "logs", follow=False, start="fedvault-node start")
    assert raised.value.exit_code == 1 and raised.value.hint.endswith("fedvault-node start")


@pytest.mark.guarantee("the logs of a process never hold more than four times their limit for long.")
def test_a_log_stays_small_while_its_process_writes_on_and_the_newest_lines_are_kept(tmp_path: Path) -> None:
    with (tmp_path / "child.log").open("ab", buffering=0) as child:  # as its supervisor opened it, and it keeps it open
        for number in range(3000):
            child.write(f"line {number:06d}\n".encode())
            if number % 100 == 99:
                keep_small(tmp_path, log_bytes=4000)
    parts = [old_log(tmp_path / "child.log", number) for number in (3, 2, 1)] + [tmp_path / "child.log"]
    lines = [line for part in parts if part.exists() for line in part.read_text().splitlines()]
    assert lines[-1] == "line 002999" and lines == [f"line {number:06d}" for number in range(3000 - len(lines), 3000)]
    assert {path.name for path in tmp_path.iterdir()} <= {path.name for path in parts}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * (4000 + 100 * len(b"line 000000\n"))


def test_a_full_disk_costs_old_lines_and_not_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared.processes.log_files.shutil.copyfileobj", full)
    (tmp_path / "a.log").write_text("x" * 100)
    keep_small(tmp_path, log_bytes=10)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("a.log", 0)]


def test_the_supervisor_keeps_its_childrens_logs_and_its_own_small(tmp_path: Path) -> None:
    for name in ("gateway.log", "supervisor.log"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(LOG_BYTES + 1)
    supervisor = Supervisor(tmp_path, tmp_path, list)
    supervisor.ask()
    supervisor.tick()
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.log*")}
    assert sizes == {
        "gateway.log": 0,
        "supervisor.log": 0,
        "gateway.log.1": LOG_BYTES + 1,
        "supervisor.log.1": LOG_BYTES + 1,
    }
