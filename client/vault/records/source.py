"""A dataset's source as a table: the columns that a study reads, and those that its records are known by."""

from typing import TYPE_CHECKING

from client.policy import subgroup_columns
from client.vault.records.identity import RecordContents, unit_name
from shared.records.earlier_tables import read_earlier_table
from shared.records.tables import columns_of, content_columns, identity, read_table
from shared.study.declaration import Study
from shared.study.tasks import MEDIA, TEXTS

if TYPE_CHECKING:
    import pandas as pd

    from client.policy import DatasetPolicy
    from client.vault.records.dataset import Dataset
    from shared.tasks.task_table import Table


def reader_of(policy: "DatasetPolicy", study: Study) -> "Table":
    """Return what reads a study's columns from a dataset's table."""
    from shared.tasks.registry import task_kind
    from shared.tasks.task_table import Table

    return Table(task_kind(study.task), policy.columns, policy.labels)


def columns_read(policy: "DatasetPolicy", study: Study) -> tuple[str, ...]:
    """Return the columns of the source that a study reads, by their names there."""
    return tuple(dict.fromkeys([*reader_of(policy, study).names.values(), *subgroup_columns(policy, study)]))


def read_source(dataset: "Dataset", study: Study | None = None) -> "pd.DataFrame":
    """Read the columns that records are known by, those that the study reads, and the unit's.

    Raises:
        DataError: the source cannot be read, or a column is missing.
    """
    policy = dataset.policy
    names, optional = content_columns(columns_of(dataset.source), policy.columns), list[str]()
    if study is not None:
        reader = reader_of(policy, study)
        names, optional = names | reader.names, reader.optional
    media = [column for name, column in names.items() if name in MEDIA]
    others = [*_unit_columns(policy), *_split_columns(policy)]
    others += [] if study is None else subgroup_columns(policy, study)
    texts = [names[name] for name in TEXTS if name in names]
    return read_table(dataset.source, [*names.values(), *others], media, optional=optional, texts=texts)


def read_whole_source(dataset: "Dataset") -> "tuple[pd.DataFrame, str]":
    """Read what records are known by, the unit's column, and the labels if there are any; with the labels' column.

    Raises:
        DataError: the source cannot be read, or a column is missing.
    """
    policy, present = dataset.policy, columns_of(dataset.source)
    label = policy.columns.get("label", "label")
    labels = [label] if label in present or "label" in policy.columns else []
    names = content_columns(present, policy.columns)
    media = [column for name, column in names.items() if name in MEDIA]
    others = [*_unit_columns(policy), *_split_columns(policy), *labels]
    return read_table(dataset.source, [*names.values(), *others], media), "".join(labels)


def row_texts(dataset: "Dataset", contents: RecordContents, table: "pd.DataFrame") -> list[list[str]]:
    """Return what each row is known by: its content as a whole, and its unit. An empty text identifies nothing."""
    rows, policy = [[text] for text in contents.rows], dataset.policy
    for column in _unit_columns(policy):
        # whoever is in two datasets has one budget, whatever the rows say
        for texts, name in zip(rows, map(unit_name, table[column]), strict=True):
            texts += [f"{policy.unit} {name}"] if name else []
    return rows


def contents_of(dataset: "Dataset", table: "pd.DataFrame") -> RecordContents:
    """Return the content of a dataset's rows."""
    return RecordContents(table, content_columns(table.columns, dataset.policy.columns).values())


def earlier_row_texts(dataset: "Dataset", table: "pd.DataFrame") -> list[list[str]]:
    """Return what version 1 of the record identity knew each row by: each cell with content, and its unit."""
    policy = dataset.policy
    columns = content_columns(table.columns, policy.columns).values()
    rows = [[identity(cell) for cell in row] for row in zip(*(table[column] for column in columns), strict=True)]
    for column in _unit_columns(policy):
        for texts, name in zip(rows, table[column].str.strip(), strict=True):
            texts += [f"{policy.unit} {name}"] if name else []
    return rows


def read_earlier_source(dataset: "Dataset") -> "pd.DataFrame":
    """Read the columns that records are known by, and the unit's, as version 1 of the record identity spelled them.

    Raises:
        DataError: the source cannot be read.
    """
    names = content_columns(columns_of(dataset.source), dataset.policy.columns)
    media = [column for name, column in names.items() if name in MEDIA]
    return read_earlier_table(dataset.source, [*names.values(), *_unit_columns(dataset.policy)], media)


def _unit_columns(policy: "DatasetPolicy") -> list[str]:
    return [] if policy.unit_column is None else [policy.unit_column]


def _split_columns(policy: "DatasetPolicy") -> list[str]:
    return [] if policy.split_by is None else [policy.split_by]
