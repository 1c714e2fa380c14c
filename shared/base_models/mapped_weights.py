"""Give back the memory of weights that are mapped from a file and not needed for now."""

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

MAPPINGS = Path("/proc/self/smaps")
SUFFIX = ".safetensors"


class _Mapping(NamedTuple):
    start: int
    stop: int
    as_filed: bool
    """True if the system reports that every page is unchanged since it was read from the file."""


def give_back(weights: Iterable[Tensor]) -> int:
    """Let the system take back the memory of these weights; reading them again loads them from their file.

    Nothing happens to weights that are not mapped from a safetensors file, or whose pages were written to, nor on a
    system that does not report its mappings as Linux does.

    Returns:
        Bytes that were given back.
    """
    mappings, given = _mappings(), 0
    for tensor in weights if mappings else ():
        start, stop = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if any(m.start <= start and stop <= m.stop and m.as_filed for m in mappings):
            # whole pages alone: the first and the last may hold some of a neighbour
            first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first and not _advise(first, last - first, mmap.MADV_DONTNEED):
                given += last - first
    return given


def _mappings() -> list[_Mapping]:
    """List the mappings of safetensors files in this process."""
    try:
        report = MAPPINGS.read_text(errors="replace")
    except OSError:  # another system, or one that reports nothing: only memory is lost
        return []
    mappings, inside = list[_Mapping](), False
    for line in report.splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):  # the first line of a mapping: its addresses, and its file at the end
            inside = line.endswith(SUFFIX)
            if inside:
                start, stop = (int(address, 16) for address in name.split("-"))
                mappings.append(_Mapping(start, stop, as_filed=False))
        elif inside and name == "Anonymous:" and rest[0] == "0":
            mappings[-1] = mappings[-1]._replace(as_filed=True)
    return mappings


def _advise(start: int, size_bytes: int, advice: int) -> int:
    status: int = ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size_bytes), ctypes.c_int(advice))
    return status
