"""Activations in a file of their own, read and written by rows.

Reading copies what is asked for and no more: a mapping would count every page that was ever looked at as memory of the
process that trains.
"""

import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ActivationFile:
    """Rows (rows, width) of one type of number. It stays readable when its name is gone.

    Args:
        path: of the file.
        width: numbers in a row.
        dtype: of the numbers.
        new: make the file anew, for its owner's eyes alone, and write it; else it is only read.
    """

    def __init__(self, path: Path, *, width: int, dtype: DTypeLike, new: bool = False) -> None:
        self._path, self._width, self._dtype = path, width, np.dtype(dtype)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if new else os.O_RDONLY
        self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._file)

    def read(self, start: int, stop: int) -> NDArray[np.floating]:
        """Rows from `start` up to but without `stop`, a copy (stop - start, width).

        Raises:
            OSError: the file ends before.
        """
        rows = np.empty((stop - start, self._width), self._dtype)
        found = os.preadv(self._file, [rows.view(np.uint8).data], start * self._bytes_per_row)
        if found != rows.nbytes:
            raise OSError(f"Expected {rows.nbytes} bytes from row {start} of {self._path.name}, got {found}.")
        return rows

    def write(self, start: int, rows: NDArray[np.floating]) -> None:
        """Write rows (rows, width) from `start` on.

        Raises:
            OSError: not everything could be written.
        """
        plain = np.ascontiguousarray(rows, self._dtype)
        written = os.pwritev(self._file, [plain.view(np.uint8).data], start * self._bytes_per_row)
        if written != plain.nbytes:
            raise OSError(f"Expected to write {plain.nbytes} bytes to {self._path.name}, wrote {written}.")

    def flush(self) -> None:
        """Return when everything that was written will survive a crash."""
        os.fsync(self._file)

    @property
    def _bytes_per_row(self) -> int:
        return self._width * self._dtype.itemsize
