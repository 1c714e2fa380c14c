"""A dataset's source as a table: the columns that a study reads, and those that its records are known by."""

from typing import TYPE_CHECKING

from client.vault.records.splits import unit_name
from shared.records.tables import columns_of, content_columns, identity, read_table
from shared.study.declaration import Study
from shared.study.tasks import MEDIA

if TYPE_CHECKING:
    import pandas as pd

    from client.vault.records.dataset import Dataset


def read_source(dataset: "Dataset", study: Study | None = None) -> "pd.DataFrame":
    """Read the columns that records are known by, those that the study reads, and the unit's.

    Raises:
        DataError: the source cannot be read, or a column is missing.
    """
    policy = dataset.policy
    names, optional = content_columns(columns_of(dataset.source), policy.columns), list[str]()
    if study is not None:
        from shared.tasks.registry import task_kind
        from shared.tasks.task_table import Table

        reader = Table(task_kind(study.task), policy.columns)
        names, optional = names | reader.names, reader.optional
    media = [column for name, column in names.items() if name in MEDIA]
    others = [policy.unit_column] if policy.unit_column else []
    return read_table(dataset.source, [*names.values(), *others], media, optional=optional)


def identifying_texts(dataset: "Dataset", table: "pd.DataFrame") -> list[str]:
    """Return what records are known by: each text, image and recording in them, whichever study may read it.

    Column after column, so that row number r of n has every n-th text, from r on. An empty text identifies nothing.
    """
    policy = dataset.policy
    columns = content_columns(table.columns, policy.columns)
    texts = [identity(cell) for column in columns.values() for cell in table[column]]
    if policy.unit_column is not None:
        # whoever is in two datasets has one budget, whatever the rows say
        names = map(unit_name, table[policy.unit_column])
        texts += [f"{policy.unit} {name}" if name else "" for name in names]
    return texts
