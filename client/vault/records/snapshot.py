"""From an operator's table to what one study run trains on: splits, fields, targets; and facts for the operator."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.vault.records.privacy_units import group
from client.vault.records.splits import Split, splits_of, unit_splits
from shared.records.ragged import Problem, Records
from shared.tasks.task_table import Table, in_words


@dataclass(frozen=True)
class SplitRule:
    """A rule that splits the rows of a dataset into records to train on and records held out."""

    key: bytes
    """Secret of the node, 16 to 64 bytes: without it nobody can tell which records were trained on."""
    holdout: float
    """Fraction of the records, or units, that is never trained on, in [0, 1)."""
    unit_column: str | None = None
    """Column that names each row's unit of privacy; None: every row is a unit of its own."""
    used: float = 1.0
    """Fraction of the records, or units, that is used at all, in (0, 1]."""

    def splits(self, reader: Table, table: pd.DataFrame) -> NDArray[np.object_]:
        """Decide every row's split, each by itself or with its unit."""
        if self.unit_column is None:
            splits = splits_of(reader.contents(table), key=self.key, holdout=self.holdout, used=self.used)
        else:
            units = table[self.unit_column].tolist()
            splits = unit_splits(units, key=self.key, holdout=self.holdout, used=self.used)
        return np.array(splits, dtype=object)


@dataclass(frozen=True)
class Facts:
    """Depends on the records: shown to the operator, never sent."""

    rows: int
    train: int
    units: int
    """What the training records belong to; as many as records, unless the unit is a column."""
    holdout: int
    dropped: int
    """Rows that are not used, rows of a unit beyond `records_per_unit`, and rows whose unit has no value."""
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
    problems: tuple[Problem, ...]
    """Every row that something is wrong with. For the operator's eyes only."""


def take_snapshot(
    table: pd.DataFrame, reader: Table, processor: object, rule: SplitRule, *, records_per_unit: int
) -> Snapshot:
    """Split a table's rows, each by itself, and encode them for one study.

    Args:
        table: with the columns of the study's task, and the rule's unit column.
        reader: names the study's columns in this table.
        processor: of the study's base model, as the reader's task kind makes it: its tokenizer, say.
        rule: decides which rows are trained on.
        records_per_unit: from the study: the most records of one unit that are trained on.
    """
    splits = rule.splits(reader, table)
    train_rows = table[splits == Split.TRAIN]
    train, problems = reader.encode(train_rows, processor)
    holdout, others = reader.encode(table[splits == Split.HOLDOUT], processor)
    if rule.unit_column is not None:
        units = train_rows[rule.unit_column].tolist()
        train = group(train, units, records_per_unit=records_per_unit, key=rule.key)
    facts = Facts(
        rows=len(table),
        train=len(train),
        units=train.unit_count,
        holdout=len(holdout),
        dropped=len(table) - len(train) - len(holdout),
        unusable=train.unusable,
        labels=reader.kind.counts(train),
        problems=in_words(problems + others),
    )
    return Snapshot(train, holdout, facts, problems + others)
