"""Hold records as named ragged arrays, the form into which task kinds bring an operator's rows.

Each field holds one array per record, end to end in one flat array: token ids, pixels, a waveform, a label, the bytes
of a reference text. Read-only, the same for every kind, and quick to open in another process.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shared.errors import DataError

USABLE, UNITS, OFFSETS = "usable", "units", ":offsets"


@dataclass(frozen=True)
class Ragged:
    """One array per record, stored end to end."""

    values: NDArray[Any]
    """The entries of all records, one record after the other."""
    offsets: NDArray[np.int64]
    """Where each record begins and ends: record i is values[offsets[i]:offsets[i + 1]]."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of entries in each record (records,)."""
        return np.diff(self.offsets)

    def select(self, rows: NDArray[np.int64]) -> "Ragged":
        """Return the arrays of some records, in this order."""
        return ragged([self[row] for row in rows.tolist()], self.values.dtype)


def ragged(parts: Sequence[Any], dtype: DTypeLike) -> Ragged:
    """Pack one array, list or number per record."""
    arrays = [np.atleast_1d(np.asarray(part, dtype=dtype)) for part in parts]
    offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays], dtype=np.int64)]).astype(np.int64)
    return Ragged(np.concatenate(arrays) if arrays else np.zeros(0, dtype), offsets)


def texts(values: Sequence[str]) -> Ragged:
    """Pack one text per record, as UTF-8."""
    return ragged([np.frombuffer(value.encode("utf-8", "replace"), np.uint8) for value in values], np.uint8)


def text(field: Ragged, index: int) -> str:
    """Return one record's text from a field that `texts` packed."""
    return field[index].tobytes().decode("utf-8", "replace")


@dataclass(frozen=True)
class Records:
    """Records of one task kind, field by field.

    A record that cannot be used stays in place, with a loss of zero: leaving it out would make the places of others
    depend on it.
    """

    fields: Mapping[str, Ragged]
    """Ragged arrays by field; the task kind gives them their meaning."""
    usable: NDArray[np.bool_]
    """False for a record that contributes nothing (records,)."""
    units: NDArray[np.int64] | None = None
    """Index of the unit that each record belongs to (records,), from 0. None: each record is a unit of its own."""

    def __post_init__(self) -> None:
        wrong = [name for name, field in self.fields.items() if len(field) != len(self.usable)]
        if wrong:
            raise DataError(
                f"Expected one {wrong[0]} per record, got {len(self.fields[wrong[0]])} for {len(self.usable)}."
            )
        if self.units is not None and (self.units.shape != self.usable.shape or (self.units < 0).any()):
            raise DataError(f"Expected one unit from 0 per record for {len(self)} records, got {self.units.shape}.")

    def __len__(self) -> int:
        return len(self.usable)

    def __getitem__(self, name: str) -> Ragged:
        return self.fields[name]

    @property
    def unit_count(self) -> int:
        """Number of units to sample from, which are records or groups of records. For the operator's eyes only."""
        if self.units is None:
            return len(self)
        return int(self.units.max()) + 1 if len(self) else 0

    @property
    def unusable(self) -> int:
        """Number of records that contribute nothing. For the operator's eyes only."""
        return int((~self.usable).sum())

    def select(self, rows: NDArray[np.int64]) -> "Records":
        """Return some of the records, in this order and without their units."""
        return Records({name: field.select(rows) for name, field in self.fields.items()}, self.usable[rows])

    def without_use(self) -> "Records":
        """Return the records as ones that contribute nothing."""
        return replace(self, usable=np.zeros(len(self), dtype=bool))

    def digest(self, names: Sequence[str]) -> str:
        """Hash some fields to a name for caches on this machine. It depends on the data and is never sent."""
        hashed = hashlib.blake2b(digest_size=16)
        for name in names:
            hashed.update(name.encode() + self[name].values.tobytes() + self[name].offsets.tobytes())
        return hashed.hexdigest()

    def content(self, index: int) -> bytes:
        """Encode one record completely, as bytes that no record with another content shares."""
        parts = [f"{name} {field[index].dtype.str} {len(field[index])} ".encode() for name, field in self._sorted()]
        return b"".join(head + field[index].tobytes() for head, (_, field) in zip(parts, self._sorted(), strict=True))

    def save(self, path: Path) -> None:
        """Write the records to an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {USABLE: self.usable}
        for name, field in self.fields.items():
            arrays[name], arrays[name + OFFSETS] = field.values, field.offsets
        if self.units is not None:
            arrays[UNITS] = self.units
        # NumPy gives a path that ends otherwise an ending of its own; a file that is there keeps its mode
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type] # the stub takes its own options for arrays

    def _sorted(self) -> list[tuple[str, Ragged]]:
        return sorted(self.fields.items())


class Note(str):
    """A reason that leaves its row in use: notes of one kind are counted, not listed.

    Args:
        reason: about one row.
        kind: about all such rows together, after their number.
        left_out: characters of its text, or milliseconds of its recording, that are not read, if it is about that.
        of: characters or milliseconds that it has.
        unit: name of what the last two count, for all such rows together.
    """

    kind: str
    left_out: int
    of: int
    unit: str

    def __new__(cls, reason: str, *, kind: str, left_out: int = 0, of: int = 0, unit: str = "characters") -> "Note":
        """Make a text with what it is counted by."""
        note = super().__new__(cls, reason)
        note.kind, note.left_out, note.of, note.unit = kind, left_out, of, unit
        return note


class Problem(NamedTuple):
    """A row with something wrong in it, and the reason. For the operator's eyes only."""

    row: int
    """Number of the row, from 0, in the table as it was read."""
    reason: str


class Encoded(NamedTuple):
    """Rows as a task kind encoded them, and the problems that it met."""

    records: Records
    problems: tuple[Problem, ...]
    """One for each unusable record, and for each cut or change in a usable one."""


def load(path: Path) -> Records:
    """Read records that `Records.save` wrote.

    Raises:
        DataError: the file holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name + OFFSETS in arrays.files]
            fields = {name: Ragged(arrays[name], arrays[name + OFFSETS]) for name in names}
            units = arrays[UNITS] if UNITS in arrays.files else None
            return Records(fields, arrays[USABLE], units)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Expected prepared records at {path}, got an unreadable file.", hint=str(error)) from None


def joined(parts: Sequence[Records]) -> Records:
    """Join the records of several sites into one dataset; units of different sites stay different."""
    names = parts[0].fields
    fields = {
        name: ragged([row for part in parts for row in _rows(part[name])], parts[0][name].values.dtype)
        for name in names
    }
    starts = np.cumsum([0, *(part.unit_count for part in parts)]).tolist()
    units = [part.units + start for part, start in zip(parts, starts, strict=False) if part.units is not None]
    grouped = len(units) == len(parts)
    return Records(fields, np.concatenate([part.usable for part in parts]), np.concatenate(units) if grouped else None)


def _rows(field: Ragged) -> list[NDArray[Any]]:
    return [field[index] for index in range(len(field))]


def with_units(records: Records, units: NDArray[np.int64]) -> Records:
    """Return records together with the unit that each belongs to."""
    return replace(records, units=units)
