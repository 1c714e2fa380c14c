"""Files that are never half-written, and what a file is."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that readers see the old one or the new one, and a crash leaves one of them."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable what was created, renamed or removed in a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Fill a new folder that appears at `target` when the block ends, and not at all if it fails.

    What was at `target` is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        filled = scratch / "new"
        filled.mkdir()
        yield filled
        if target.exists():
            target.rename(scratch / "old")
        filled.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; computed once for as long as its size and time of change stay.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
