"""What the commands do that explain a model's answers: read rows, explain them, write a page."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.adapted_model.finished import FinishedModel, load_finished
from shared.errors import DataError, SettingsError
from shared.explanations.explain import explain, refuse_unexplained
from shared.explanations.page import as_json, write_explanations
from shared.records.tables import read_table
from shared.tasks.kind import Cell
from shared.terminal import saying

Echo = Callable[[str], None]


def rows_of(finished: FinishedModel, table: Path, columns: Mapping[str, str], count: int) -> dict[str, list[Cell]]:
    """Read the first rows of a table as questions to a model; a column of answers is not needed.

    Args:
        finished: the model, whose task names the columns.
        table: CSV, JSON Lines or Parquet.
        columns: what the task's columns are called in it; default: the same.
        count: the most rows.

    Raises:
        DataError: the table cannot be read, or lacks a column.
        SettingsError: `columns` names no column of the task.
    """
    kind = finished.model.kind
    asked = [column for column in kind.columns if column.name not in kind.answers]
    unknown = sorted(set(columns) - {column.name for column in kind.columns})
    if unknown:
        known = ", ".join(column.name for column in asked)
        raise SettingsError(f"Expected a column of the task ({known}), got {', '.join(unknown)}.")
    names = {column.name: columns.get(column.name, column.name) for column in asked}
    media = [names[column.name] for column in asked if column.media]
    optional = [names[column.name] for column in asked if column.optional]
    part: pd.DataFrame = read_table(table, list(names.values()), media, optional=optional).head(count)
    if not len(part):
        raise SettingsError(f"Expected rows in {table}, got none.")
    return {name: part[column].tolist() for name, column in names.items()}


def explain_table(
    adapter: Path, table: Path, columns: Sequence[str], count: int, out: Path, echo: Echo, *, in_json: bool
) -> None:
    """Explain a finished model's answers to rows of a table; write a page and its figures into a folder.

    Args:
        adapter: a folder that an export wrote.
        table: the rows.
        columns: as "text=body".
        count: the most rows, from the first on.
        out: the folder.
        echo: prints a line.
        in_json: print the figures, not where they are.

    Raises:
        SettingsError: no exported adapter, a task that is not explained, captum is missing, or wrong columns.
        DataError: the table cannot be read.
    """
    require_captum()
    if not table.exists():
        raise DataError(
            f"Expected a table of rows to explain, got {table}, which is not there.", hint=f"Looked in {Path.cwd()}."
        )
    with saying("Loading the model") as activity:
        finished = load_finished(adapter)
        refuse_unexplained(finished)
        rows = rows_of(finished, table, named_columns(columns), count)
        total = len(next(iter(rows.values())))
        explanations = explain(finished, rows, lambda done: activity.now("Explaining", done, total))
    title = f"What the answers to {total} rows of {table.name} rest on"
    paths = write_explanations(explanations, title, out)
    if in_json:
        echo(json.dumps(as_json(explanations), indent=1))
        return
    for path in paths:
        echo(str(path))


def named_columns(columns: Sequence[str]) -> dict[str, str]:
    """Read pairs such as "text=body".

    Raises:
        SettingsError: one is no pair.
    """
    pairs = [column.partition("=") for column in columns]
    wrong = [
        column for column, (name, mark, other) in zip(columns, pairs, strict=True) if not (name and mark and other)
    ]
    if wrong:
        raise SettingsError(f"Expected --column task=table, as in text=body, got {wrong[0]!r}.")
    return {name: other for name, _, other in pairs}


def require_captum() -> None:
    """Refuse to explain without the library that does it.

    Raises:
        SettingsError: captum is not installed.
    """
    try:
        import captum  # noqa: F401
    except ImportError:
        raise SettingsError(
            "Expected captum, which computes explanations, got none.", hint="pip install 'fedvault[explain]'"
        ) from None
