"""Read and write activations by rows, in a file of their own.

Reading copies only the rows that are asked for: a memory mapping would count every page that was ever read as memory of
the process that trains.
"""

import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ActivationFile:
    """Stores rows (rows, width) of one type of number; stays readable after its file is removed.

    Args:
        path: of the file.
        width: numbers in a row.
        dtype: type of the numbers.
        new: make a new file that only its owner may read, for writing; otherwise the file is only read.
    """

    def __init__(self, path: Path, *, width: int, dtype: DTypeLike, new: bool = False) -> None:
        self._path, self._width, self._dtype = path, width, np.dtype(dtype)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if new else os.O_RDONLY
        self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._file)

    def read(self, start: int, stop: int) -> NDArray[np.floating]:
        """Return a copy of the rows from `start` up to, not including, `stop` (stop - start, width).

        Raises:
            OSError: the file is too short.
        """
        rows = np.empty((stop - start, self._width), self._dtype)
        size_bytes = os.preadv(self._file, [rows.view(np.uint8).data], start * self._bytes_per_row)
        if size_bytes != rows.nbytes:
            raise OSError(f"Expected {rows.nbytes} bytes from row {start} of {self._path.name}, got {size_bytes}.")
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
        """Wait until everything that was written would survive a crash."""
        os.fsync(self._file)

    @property
    def _bytes_per_row(self) -> int:
        return self._width * self._dtype.itemsize
