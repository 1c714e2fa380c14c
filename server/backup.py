"""Backs up what a server cannot make again, and restores it: settings, keys, run store, checkpoints, adapters.

A backup is a .tar.gz: the server's folder below `home/`, the run store as an SQLite file whatever it is here, and last
a manifest with the SHA-256 of each file. Flower's own database is left out: nodes are registered with it again.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

from server.run_store.copies import load_copy, save_copy
from server.run_store.database import SQLITE, open_database
from server.settings import Home
from shared.errors import RunError, SettingsError
from shared.files import complete_folder, move_into, private_file

VERSION = 1
"""Of this format."""
HOME, STORE, MANIFEST = "home", "run-store.db", "manifest.json"
LEFT_OUT = frozenset({"cache", "flower", "logs", "run"})
UNFINISHED = re.compile(r"\..*\.new|.*\.lock|.*-wal|.*-shm")
UNFINISHED_HOME = ".restored"
OPEN_AT_ONCE = 64
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError)


def back_up(home: Home, file: Path) -> None:
    """Write a backup, while the server runs or not.

    Guarantee: a backup is readable by this user alone, and is there whole or not at all.

    Raises:
        SettingsError: the file is there already or would lie in the server's folder, or that holds no server.
        RunError: the run store cannot be read, or the disk cannot be written.
    """
    if file.exists():
        raise SettingsError(f"Expected a new file, {file} is there.")
    if file.resolve().is_relative_to(home.folder.resolve()):
        raise SettingsError(
            f"Expected a file outside the server's folder, got {file}.", hint="It would back up itself."
        )
    url, digests = home.database(), dict[str, str]()
    with (
        _disk_errors(file),
        private_file(file) as unfinished,
        TemporaryDirectory() as scratch,
        tarfile.open(unfinished, "w:gz", compresslevel=1) as tar,
    ):
        # the store first: checkpoints are then as old or newer, and a run continues from the newest of them
        copy = Path(scratch) / STORE
        save_copy(url, copy)
        with copy.open("rb") as stored:
            digests[STORE] = _add(tar, STORE, stored)
        for path, opened in _files_to_keep(home, _file_of(url)):
            name = f"{HOME}/{path.relative_to(home.folder).as_posix()}"
            digests[name] = _add(tar, name, opened)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"fedvault_server_backup": VERSION, "fedvault": version("fedvault"), "made": made, "files": digests}
        _add(tar, MANIFEST, io.BytesIO(json.dumps(manifest, indent=1).encode()))


def restore(home: Home, file: Path, *, database: str | None = None) -> str:
    """Make a server's folder from a backup, and fill its database; returns when the backup was made.

    Guarantee: nothing is restored unless every file of the backup is as its manifest says.

    Args:
        home: a folder that is empty or not there.
        file: a backup.
        database: URL of the run store from now on; None leaves it as server.toml says.

    Raises:
        SettingsError: the folder holds something, the file is no whole backup or a newer version's, or the database
            holds something else.
        RunError: the database cannot be reached or a newer version wrote the run store, or the disk cannot be written.
    """
    target = home.folder
    if not file.is_file():
        raise SettingsError(f"Expected a backup, got {file}, which is not there.")
    if target.exists() and any(target.iterdir()):
        raise SettingsError(f"Expected an empty folder, {target} holds something.", hint="Choose another --home.")
    place = target / UNFINISHED_HOME if _stays(target) else target
    with _disk_errors(target), complete_folder(place, private=True) as folder:
        unpacked = folder.parent / "unpacked"
        made = _unpack(file, unpacked)
        for path in (unpacked / HOME).iterdir():
            shutil.move(path, folder / path.name)
        restored = Home(folder)
        if database is not None:
            restored.config.write_text(_with_database(restored.config.read_text(), database))
        _restore_store(unpacked / STORE, restored, target)
    if place != target:
        with _disk_errors(target):
            move_into(target, place, last=home.config.name)
    return made


def _stays(folder: Path) -> bool:
    """Return whether a folder cannot be replaced by another: a container's volume, say."""
    return folder.exists() and (folder.is_mount() or not os.access(folder.parent, os.W_OK))


def _restore_store(copy: Path, restored: Home, target: Path) -> None:
    url = restored.settings().database
    file = _file_of(url) if url else target / Home(target).default_database.name
    if file is None or not file.resolve().is_relative_to(target.resolve()):
        load_copy(copy, url)
        return
    open_database(f"{SQLITE}{copy}").dispose()  # an older store is brought up to date here, or a newer one refused
    place = restored.folder / file.resolve().relative_to(target.resolve())
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.move(copy, place)


def _file_of(url: str) -> Path | None:
    """Return the file of an SQLite store."""
    return Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None


def _files_to_keep(home: Home, store: Path | None) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open each file that is kept, some at once: a checkpoint that is replaced meanwhile is still read whole."""
    for folder, below, names in os.walk(home.folder, followlinks=True):
        if Path(folder) == home.folder:
            below[:] = [name for name in below if name not in LEFT_OUT]
        below[:] = sorted(name for name in below if not name.startswith("."))  # unfinished as well
        paths = [Path(folder) / name for name in sorted(names) if not UNFINISHED.fullmatch(name)]
        paths = [path for path in paths if store is None or path.resolve() != store.resolve()]
        for first in range(0, len(paths), OPEN_AT_ONCE):
            with ExitStack() as stack:
                opened = [(path, _opened(stack, path)) for path in paths[first : first + OPEN_AT_ONCE]]
                yield from ((path, file) for path, file in opened if file is not None)


def _opened(stack: ExitStack, path: Path) -> IO[bytes] | None:
    try:
        return stack.enter_context(path.open("rb"))
    except FileNotFoundError:  # replaced by a newer checkpoint meanwhile
        return None


class _Hashed:
    """Hashes a file while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.sha256.update(content)
        return content


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes]) -> str:
    member, hashed = tarfile.TarInfo(name), _Hashed(file)
    member.size, member.mode, member.mtime = file.seek(0, io.SEEK_END), 0o600, int(datetime.now(UTC).timestamp())
    file.seek(0)
    tar.addfile(member, hashed)
    return hashed.sha256.hexdigest()


def _unpack(file: Path, folder: Path) -> str:
    """Unpack a backup and hold it to its manifest; returns when it was made."""
    digests, manifest = dict[str, str](), dict[str, Any]()
    try:
        with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member)
                parts = PurePosixPath(member.name).parts
                if content is None or not member.isreg() or not parts or {"/", ".."} & set(parts):
                    raise tarfile.TarError(member.name)
                if member.name == MANIFEST:
                    manifest = json.load(content)
                    continue
                place, hashed = folder / member.name, _Hashed(content)
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as written:
                    shutil.copyfileobj(hashed, written)
                digests[member.name] = hashed.sha256.hexdigest()
        number, files, made = manifest["fedvault_server_backup"], manifest["files"], str(manifest["made"])
    except DAMAGE:
        raise SettingsError(f"Expected a whole backup of a server, {file} is damaged or something else.") from None
    if number != VERSION:
        raise SettingsError(
            f"Expected a backup of version {VERSION}, got version {number}.",
            hint="A newer FedVault wrote it. Update this one.",
        )
    if digests != files:
        changed = min(name for name in digests.keys() | files.keys() if digests.get(name) != files.get(name))
        raise SettingsError(f"Expected a whole backup of a server, {changed} of {file} is not what it was.")
    return made


def _with_database(settings: str, url: str) -> str:
    """Return server.toml with another database; at the top, where no table's key can follow."""
    lines = [line for line in settings.splitlines() if not re.match(r"\s*database\s*=", line)]
    return "\n".join([f"database = {json.dumps(url)}", *lines]) + "\n"


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"Expected to read and write files for {place}, got: {error}.") from None
