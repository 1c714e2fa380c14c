"""Weights are mapped from their file and take memory once they were read; what is not needed for now is given back."""

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
    """Whether the system says that every page of it is still the file's."""


def give_back(weights: Iterable[Tensor]) -> int:
    """Let the system take back what was read of these weights; whoever reads them again gets them from their file.

    Weights that are not mapped from a safetensors file, or from one whose pages were written to, stay as they are; so
    do all where the system tells no mappings, as Linux does.

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
    """Of safetensors files in this process."""
    try:
        told = MAPPINGS.read_text(errors="replace")
    except OSError:  # another system, or one that does not tell: nothing is lost but memory
        return []
    found, inside = list[_Mapping](), False
    for line in told.splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):  # the first line of a mapping: its addresses, and its file at the end
            inside = line.endswith(SUFFIX)
            if inside:
                start, stop = (int(address, 16) for address in name.split("-"))
                found.append(_Mapping(start, stop, as_filed=False))
        elif inside and name == "Anonymous:" and rest[0] == "0":
            found[-1] = found[-1]._replace(as_filed=True)
    return found


def _advise(start: int, size_bytes: int, advice: int) -> int:
    status: int = ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size_bytes), ctypes.c_int(advice))
    return status
