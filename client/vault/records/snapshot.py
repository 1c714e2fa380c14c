"""From an operator's table to what one study run trains on: roles, fields, targets; and facts for the operator."""

from dataclasses import dataclass

import pandas as pd

from client.policy import DatasetPolicy
from client.vault.records.privacy_units import group
from client.vault.records.splits import Split, splits_of, unit_splits
from shared.base_models.locate import BaseModelFiles
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table, in_words


@dataclass(frozen=True)
class Facts:
    """Depends on the records: shown to the operator, never sent."""

    rows: int
    train: int
    units: int
    """What the training records belong to; as many as records, unless the unit is a column."""
    holdout: int
    dropped: int
    """Rows of a unit beyond `records_per_unit`, and rows whose unit has no value."""
    unusable: int
    """Training records that contribute nothing: an unknown label, no text, a missing file."""
    labels: dict[str, int]
    """Training records by label of the study; empty for a task without labels."""
    problems: list[str]
    """The first few rows that something is wrong with, and what."""


@dataclass(frozen=True)
class Snapshot:
    """A table as one study sees it."""

    train: Records
    holdout: Records
    facts: Facts


def take_snapshot(
    table: pd.DataFrame, policy: DatasetPolicy, study: Study, base_files: BaseModelFiles, *, key: bytes
) -> Snapshot:
    """Give every row its role by itself, and encode.

    Args:
        table: with the columns of the study's task, and the policy's unit column.
        policy: of the dataset.
        study: its labels and lengths.
        foundation: its tokenizer.
        key: of the node; decides roles.
    """
    kind = task_kind(study.task)
    reader, processor = Table(kind, policy.columns), kind.processor(base_files)
    if policy.unit_column is None:
        every = splits_of(reader.contents(table), key=key, holdout=policy.holdout)
    else:
        every = unit_splits(table[policy.unit_column].tolist(), key=key, holdout=policy.holdout)
    decided = pd.Series(every, index=table.index)
    train, problems = reader.encode(table[decided == Split.TRAIN], processor)
    holdout, others = reader.encode(table[decided == Split.HOLDOUT], processor)
    if policy.unit_column is not None:
        values = table[decided == Split.TRAIN][policy.unit_column].tolist()
        train = group(train, values, records_per_unit=study.privacy.records_per_unit, key=key).records
    facts = Facts(
        rows=len(table),
        train=len(train),
        units=train.unit_count,
        holdout=len(holdout),
        dropped=len(table) - len(train) - len(holdout),
        unusable=train.unusable,
        labels=kind.counts(train),
        problems=in_words(problems + others),
    )
    return Snapshot(train, holdout, facts)
