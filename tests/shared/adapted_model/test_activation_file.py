"""Activations on disk: what is written comes back, and what was cut off is not taken for zeros."""

import stat
from pathlib import Path

import numpy as np
import pytest

from shared.adapted_model.activation_file import ActivationFile


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_as_they_were_written(tmp_path: Path, dtype: str) -> None:
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(dtype)
    written = ActivationFile(tmp_path / "states", width=3, dtype=dtype, new=True)
    written.write(4, rows[4:])
    written.write(0, rows[:4])
    read = ActivationFile(tmp_path / "states", width=3, dtype=dtype)
    assert np.array_equal(read.read(0, 7), rows)
    assert np.array_equal(read.read(5, 6), rows[5:6])
    assert read.read(2, 2).shape == (0, 3)
    assert stat.S_IMODE((tmp_path / "states").stat().st_mode) == 0o600


def test_it_stays_readable_without_its_name_and_gives_copies(tmp_path: Path) -> None:
    states = ActivationFile(tmp_path / "states", width=2, dtype="float32", new=True)
    states.write(0, np.ones((1, 2), np.float32))
    (tmp_path / "states").unlink()
    states.read(0, 1)[:] = 5
    assert np.array_equal(states.read(0, 1), [[1, 1]])


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    states = ActivationFile(tmp_path / "states", width=2, dtype="float32", new=True)
    states.write(0, np.ones((3, 2), np.float32))
    with pytest.raises(OSError, match=r"Expected 16 bytes from row 2 of states, got 8\."):
        states.read(2, 4)


def test_what_is_new_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "states").write_bytes(b"older" * 100)
    states = ActivationFile(tmp_path / "states", width=1, dtype="float32", new=True)
    states.write(0, np.zeros((1, 1), np.float32))
    assert (tmp_path / "states").stat().st_size == 4
