"""The pipe that says for whom something was stored: it never makes anybody wait."""

import os
import stat
from pathlib import Path

from server.wake_pipe import NUMBERS_AT_ONCE, open_pipe, pipe_of, tell, written_to


def test_numbers_arrive_and_are_read_once(tmp_path: Path) -> None:
    path = pipe_of(tmp_path / "run")
    pipe = open_pipe(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and written_to(pipe) == []
    many = list(range(2**63, 2**63 + 3 * NUMBERS_AT_ONCE))
    tell(path, many)
    tell(path, [7])
    assert written_to(pipe) == [*many, 7] and written_to(pipe) == []
    os.close(pipe)


def test_nobody_waits_for_a_gateway_that_does_not_run_or_does_not_read(tmp_path: Path) -> None:
    path = pipe_of(tmp_path)
    tell(path, [1])
    pipe = open_pipe(path)
    for _ in range(100):
        tell(path, range(10**6, 10**6 + 1000))
    assert set(written_to(pipe)) <= set(range(10**6, 10**6 + 1000))
    os.close(pipe)
    tell(path, [1])
