"""Measure the peak memory of a piece of work in a process of its own."""

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
STATUS = Path("/proc/self/status")
MIB = 2.0**20


def in_own_process(work: Callable[..., Result], *arguments: object) -> tuple[Result, float]:
    """Call a function of some module in a fresh process: what is imported there counts.

    Returns:
        What came of it, and the most memory that its process ever held, in MiB.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, work, arguments).result()


def _measured(work: Callable[..., Result], arguments: tuple[object, ...]) -> tuple[Result, float]:
    result = work(*arguments)
    return result, peak_bytes() / MIB


def peak_bytes() -> int:
    """Return the most memory that this process ever had resident."""
    if STATUS.exists():
        # Linux hands ru_maxrss down from the process that started this one; this figure begins anew
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
