"""Read an operator's table, whose columns may have any names, as the cells of a task kind."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.records.ragged import Encoded, Note, Problem
from shared.records.tables import identity, label_names_in, read_table, refuse_bytes
from shared.study.tasks import TEXTS
from shared.tasks.kind import Rows, TaskKind
from shared.tasks.label_names import LabelNames


class Table:
    """Rows of one table as one task kind reads them.

    Args:
        kind: names the columns that it reads.
        names: the table's names of these columns, by the kind's names; default: the same.
        labels: the study's labels by what the table has in their place; default: the same.
    """

    def __init__(self, kind: TaskKind, names: Mapping[str, str], labels: Mapping[str, str] | None = None) -> None:
        self.kind, self._labels = kind, labels or {}
        self.names = {column.name: names.get(column.name, column.name) for column in kind.columns}

    def read(self, path: Path, *others: str) -> pd.DataFrame:
        """Read the columns of the task, and some others.

        Raises:
            DataError: the table cannot be read, has bytes for texts, or a required column is missing.
        """
        media = [self.names[column.name] for column in self.kind.columns if column.media]
        texts = [self.names[name] for name in TEXTS if name in self.names]
        table = read_table(path, [*self.names.values(), *others], media, optional=self.optional, texts=texts)
        refuse_bytes(table, path)
        return table

    @property
    def optional(self) -> list[str]:
        """Columns that the table may lack."""
        return [self.names[column.name] for column in self.kind.columns if column.optional]

    def rows(self, part: pd.DataFrame) -> Rows:
        """Return the cells of some rows by the task's columns, with labels as the study calls them."""
        rows = {name: part[column].tolist() for name, column in self.names.items()}
        for name in set(rows) & {"label", "tags"}:
            labels = LabelNames(self._labels, label_names_in(part, self.names[name]), self.kind.labels)
            read = {cell: labels.read(cell, words=name == "tags") for cell in set(rows[name])}
            rows[name] = [read[cell] for cell in rows[name]]
        return rows

    def contents(self, part: pd.DataFrame) -> list[tuple[str, ...]]:
        """Return all cells of each row, labels included, in the form that decides the row's split."""
        columns = [[identity(cell) for cell in part[column]] for column in self.names.values()]
        return list(zip(*columns, strict=True))

    def encode(self, part: pd.DataFrame, processor: object) -> Encoded:
        """Encode some rows; problems carry the rows' numbers in the whole table."""
        records, problems = self.kind.encode(self.rows(part), processor)
        numbers = part.index.tolist()
        return Encoded(records, tuple(Problem(int(numbers[row]), reason) for row, reason in problems))


def in_words(problems: Sequence[Problem], most: int = 5, files: Sequence[tuple[int, str]] = ()) -> list[str]:
    """Describe the first few problems, with the rows of each file counted from 1. For the operator's eyes only.

    Args:
        problems: by number of the row in all that was read.
        most: that are described.
        files: number of the first row, and name, of each file that was read after the table.
    """
    listed = sorted(problem for problem in problems if not isinstance(problem.reason, Note))
    shown = [f"{_place(problem.row, files)}: {problem.reason}" for problem in listed[:most]]
    return [*shown, f"and {len(listed) - most} more"] if len(listed) > most else shown


def _place(row: int, files: Sequence[tuple[int, str]]) -> str:
    start, name = max(((first, f" of {name}") for first, name in files if first <= row), default=(0, ""))
    return f"row {row - start + 1}{name}"


def counted(problems: Sequence[Problem]) -> list[str]:
    """Count the rows that are in use although something was changed in them. For the operator's eyes only."""
    of_kind: dict[str, list[Note]] = {}
    for problem in problems:
        if isinstance(problem.reason, Note):
            of_kind.setdefault(problem.reason.kind, []).append(problem.reason)
    return [f"{len(notes)} {kind}{_share(notes)}." for kind, notes in of_kind.items()]


def _share(notes: Sequence[Note]) -> str:
    left_out, length = sum(note.left_out for note in notes), sum(note.of for note in notes)
    return f" ({max(1, round(100 * left_out / length))} % of their {notes[0].unit})" if length else ""
