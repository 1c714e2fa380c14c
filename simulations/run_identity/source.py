"""A digest of the files that a run was computed from, so that a finished one is not read as another's.

It covers the table, the files of its own splits and of its partition, byte by byte. Images and recordings are many and
large: of each one that a cell names it covers name and size, and of a dataset folder that holds them the descriptions,
and name and size of the rest. It does not cover the base model, which `model.fingerprint` pins.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from shared.errors import DataError
from shared.records.formats import open_table
from shared.tasks.kind import TaskKind
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table
from simulations.experiment.partition_kinds import FromFile
from simulations.experiment.scenario import Scenario

SOURCE, MEDIA = "simulation.data.source", "files that its cells name"
MISSING = "missing"
DESCRIPTIONS = (".json",)
"""Files of a dataset folder that say what its other files hold."""


def digests(scenario: Scenario, source: Path) -> dict[str, str]:
    """Return a digest of each file of a scenario's data, by the key that names it.

    What is not there or cannot be read is for the run itself to refuse, in better words.
    """
    data, folder, kind = (
        scenario.simulation.data,
        source if source.is_dir() else source.parent,
        task_kind(scenario.task),
    )
    has_media = any(column.media for column in kind.columns)
    made = {SOURCE: _of(source, sizes_alone=has_media)}
    partition = data.partition.file if isinstance(data.partition, FromFile) else None
    own = {"validation": data.validation, "test": data.test, "partition.file": partition}
    paths = {name: folder / Path(file).expanduser() for name, file in own.items() if file is not None}
    made |= {f"simulation.data.{name}": _of(path, sizes_alone=has_media) for name, path in paths.items()}
    if has_media:
        tables = [source, *(path for name, path in paths.items() if name != "partition.file")]
        made[MEDIA] = _of_named(kind, data.columns, tables)
    return made


def of_file(path: Path) -> str:
    """Return the SHA-256 of a file, computed once while the file is the same one to the file system."""
    if not path.is_file():  # a device or a pipe has no end
        return MISSING
    try:
        known = path.stat()
        return _read(path.resolve(), known.st_size, known.st_mtime_ns)
    except OSError:
        return MISSING


@lru_cache(maxsize=64)
def _read(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of(path: Path, *, sizes_alone: bool) -> str:
    return _of_folder(path, sizes_alone=sizes_alone) if path.is_dir() else of_file(path)


def _of_folder(folder: Path, *, sizes_alone: bool) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("cache-", ".")))
    by_size = {path for path in files if sizes_alone and path.suffix not in DESCRIPTIONS}
    return _of_lines(
        f"{path.relative_to(folder)} {_size(path) if path in by_size else of_file(path)}" for path in files
    )


def _of_named(kind: TaskKind, columns: dict[str, str], tables: Iterable[Path]) -> str:
    """Return a digest of names and sizes of the files that media cells name; what lies in a cell is the table's."""
    names = Table(kind, columns).names
    media, lines = {names[column.name] for column in kind.columns if column.media}, list[str]()
    for path in tables:
        folder = path if path.is_dir() else path.parent
        lines += [f"{name} {_size(folder / name)}" for name in _named_in(path, media)]
    return _of_lines(lines)


def _named_in(path: Path, media: set[str]) -> list[str]:
    try:
        table = open_table(path)
    except DataError:
        return []
    cells = [cell for place, name in enumerate(table.names) if name in media for cell in table.cells(place)]
    bare = [cell.get("path") if isinstance(cell, dict) and not cell.get("bytes") else cell for cell in cells]
    return sorted({cell.strip() for cell in bare if isinstance(cell, str) and cell.strip()})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a cell may hold what is no path at all
        return -1


def _of_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
