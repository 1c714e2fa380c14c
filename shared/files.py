"""Files that are never half-written, never readable by others where they are private, and durable once they are there.

Every write that must survive a crash goes through here: into a file beside its place, to the disk, then renamed, then
the folder to the disk as well, for a rename that is not on the disk can be undone by a power cut.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from shared.errors import AccessError, SettingsError

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
OTHERS = 0o007
PUBLIC_FILE = 0o644  # less what the umask takes away
LONGEST_READABLE = 40
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""Names that are files' names as they are."""
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""How file systems say that they know no hard links, as some network volumes do."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that readers see the old one or the new one, and a crash leaves one of them."""
    _write(path, content, mode=PUBLIC_FILE)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as `write_atomically` does, readable and writable by this user alone whatever was there before."""
    _write(path, content, mode=PRIVATE_FILE)


def write_key_pair(key: tuple[Path, bytes], certificate: tuple[Path, bytes]) -> None:
    """Replace a private key and what belongs to it: both are on the disk before either takes its place."""
    new_key = _unfinished(*key, PRIVATE_FILE)
    try:
        new_certificate = _unfinished(*certificate, PUBLIC_FILE)
    except BaseException:
        new_key.unlink()
        raise
    new_key.replace(key[0])
    new_certificate.replace(certificate[0])
    for path, _content in (key, certificate):
        sync_folder(path.parent)


def write_private_once(path: Path, content: bytes) -> bool:
    """Write a private file unless there is one; returns whether it was written. Of two writers one wins, whole."""
    unfinished = _unfinished(path, content, PRIVATE_FILE)
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        if path.exists():
            return False
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def private_folder(path: Path) -> None:
    """Make a folder that this user alone may enter; one that is there already becomes so.

    Raises:
        SettingsError: it is another user's, and open to everybody.
    """
    path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & ~PRIVATE_FOLDER:
        return
    try:
        path.chmod(mode & PRIVATE_FOLDER)
    except PermissionError:
        if mode & OTHERS:
            raise SettingsError(
                f"Expected a folder that no other user may enter, {path} is another user's and open to everybody.",
                hint=f"Have its owner type: chmod 700 {path}. Or choose another folder.",
            ) from None


def append_private(path: Path, line: str) -> None:
    """Add a line to a file that this user alone can read."""
    with os.fdopen(_open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as file:
        os.fchmod(file.fileno(), PRIVATE_FILE)
        file.write(line)


@contextmanager
def private_file(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which appears at `path` when the block ends, and not at all if it fails.

    It is readable by this user alone from its first byte; what was at `path` is replaced.
    """
    unfinished = _place_beside(path)
    os.close(_open_private(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        yield unfinished
        _sync_file(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def named_after(name: str) -> str:
    """Return a file's name for a name that may hold anything: readable, in no other folder, no other name's file."""
    if PLAIN_NAME.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:LONGEST_READABLE].strip("-")
    return f"{readable or 'name'}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def require_access(folder: Path, *, to_write: bool = True) -> None:
    """Return if a folder is this user's to use, or is not there.

    Raises:
        AccessError: it is there, and another user's.
    """
    wanted = os.R_OK | os.W_OK | os.X_OK if to_write else os.X_OK
    try:
        if not folder.exists() or os.access(folder, wanted):
            return
    except PermissionError as error:
        raise AccessError.of(error) from None
    raise AccessError.of(PermissionError(errno.EACCES, "", str(folder)))


def sync_folder(folder: Path) -> None:
    """Make durable what was created, renamed or removed in a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def complete_folder(target: Path, *, private: bool = False) -> Iterator[Path]:
    """Fill a new folder that appears at `target` when the block ends, and not at all if it fails.

    What was at `target` is replaced. A private folder and everything in it are this user's alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER if private else 0o777)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        filled = scratch / "new"
        filled.mkdir(mode=PRIVATE_FOLDER if private else 0o777)
        yield filled
        for path in filled.rglob("*"):
            if path.is_dir():
                path.chmod(PRIVATE_FOLDER if private else path.stat().st_mode)
                sync_folder(path)
            elif path.is_file():
                path.chmod(PRIVATE_FILE if private else path.stat().st_mode)
                _sync_file(path)
        sync_folder(filled)
        if target.exists():
            target.rename(scratch / "old")
        filled.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a free place beside `target`; what is made there moves to `target` when the block ends, or is removed.

    Raises:
        OSError: something stands at `target` by then; it stays as it is.
    """
    made = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield made
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def move_into(target: Path, folder: Path, *, last: str) -> None:
    """Move all that is in a complete folder into another on the same disk, and remove it.

    Args:
        target: stays what it is, as a container's volume must.
        folder: in it.
        last: name of what comes last: until it is there, the target counts as empty to whoever looks for it.
    """
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        path.rename(target / path.name)
    sync_folder(target)
    folder.rmdir()


def _write(path: Path, content: bytes, *, mode: int) -> None:
    unfinished = _unfinished(path, content, mode)
    unfinished.replace(path)
    sync_folder(path.parent)


def _unfinished(path: Path, content: bytes, mode: int) -> Path:
    unfinished = _place_beside(path)
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return unfinished


def _place_beside(path: Path) -> Path:
    """A name that no other writer uses, free of what an earlier process of this number left."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.new")
    unfinished.unlink(missing_ok=True)
    return unfinished


def _open_private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; computed once for as long as its size and time of change stay.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


def files_sha256(paths: Iterable[Path]) -> list[str]:
    """Return the SHA-256 of each file, in order, as `file_sha256` does.

    Raises:
        OSError: one cannot be read.
    """
    return [file_sha256(path) for path in paths]


@lru_cache(maxsize=64)
def _sha256_of(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
