"""From an operator's table to what one study run trains on: splits, fields, targets; and facts for the operator."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.vault.ledger.rows import IDENTITY_VERSION
from client.vault.records.held_out import held_out_units, with_groups
from client.vault.records.identity import RecordContents, unit_name
from client.vault.records.privacy_units import group, rows_without_copies
from client.vault.records.splits import Split, splits_of, unit_splits
from shared.records.ragged import Note, Problem, Records
from shared.records.tables import content_columns, notes_on
from shared.study.evaluation import Evaluation
from shared.tasks.task_table import Table, counted, in_words


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

    names: Mapping[str, str] = field(default_factory=dict)
    """The table's names of tasks' columns, where they differ."""
    identity_version: int = IDENTITY_VERSION
    """Version of the record identity that the dataset was registered with."""
    split_by: str | None = None
    """Column whose rows of one value are all trained on or all held out, while each stays a record of its own."""

    def contents(self, table: pd.DataFrame) -> list[str]:
        """Return the content of each row, as the record identity says."""
        return RecordContents(table, content_columns(table.columns, self.names).values()).rows

    def splits(self, reader: Table, table: pd.DataFrame, contents: Sequence[str]) -> NDArray[np.object_]:
        """Decide every row's split, each by itself, with its unit, or with the other rows of its value.

        Guarantee: content alone decides whether a record is held out, not its label nor the study.
        Guarantee: where a column decides, its cell alone says if a row is trained on, and no content is on both sides.

        Args:
            reader: names the study's columns in this table.
            table: whole.
            contents: of each row.
        """
        splits = self.decided(reader, table, contents)
        if self.split_by is None:
            return splits
        trained_on = {content for content, split in zip(contents, splits, strict=True) if split == Split.TRAIN}
        twice = [content in trained_on for content in contents]
        # the held-out side gives way: what is trained on may not depend on another row
        return np.where((splits == Split.HOLDOUT) & twice, Split.DROPPED, splits).astype(object)

    def decided(self, reader: Table, table: pd.DataFrame, contents: Sequence[str]) -> NDArray[np.object_]:
        """Decide every row's split by its own cells, whatever stands in other rows."""
        fractions = {"holdout": self.holdout, "used": self.used}
        earlier = self.identity_version < IDENTITY_VERSION
        if (together := self.unit_column or self.split_by) is not None:
            name_of = str.strip if earlier and self.unit_column else unit_name
            splits = unit_splits(table[together].tolist(), key=self.key, name_of=name_of, **fractions)
        else:
            decisive = reader.contents(table) if earlier else [(content,) for content in contents]
            splits = splits_of(decisive, key=self.key, **fractions)
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
    """Rows that are not used, copies, rows of a unit beyond `records_per_unit`, and rows whose unit has no value."""
    unusable: int
    """Training records that contribute nothing: an unknown label, no text, a missing file."""
    labels: dict[str, int]
    """Training records by label of the study; empty for a task without labels."""
    problems: list[str]
    """The first few rows that something is wrong with, and what; how many were cut, and what was converted."""
    copies: int
    """Training rows left out because another is encoded alike: copies are one record."""
    most_alike: int
    """The most usable records of one content that are trained on, or counted by an evaluation, under several answers or
    subgroups, say; 1 if the unit is a column."""


@dataclass(frozen=True)
class Snapshot:
    """A table as one study sees it."""

    train: Records
    holdout: Records
    facts: Facts
    problems: tuple[Problem, ...]
    """Every row that something is wrong with. For the operator's eyes only."""


def take_snapshot(
    table: pd.DataFrame,
    reader: Table,
    processor: object,
    rule: SplitRule,
    *,
    records_per_unit: int,
    evaluation: Evaluation | None = None,
) -> Snapshot:
    """Split a table's rows, each by itself, and encode them for one study.

    Args:
        table: with the columns of the study's task, and the rule's unit column.
        reader: names the study's columns in this table.
        processor: of the study's base model, as the reader's task kind makes it: its tokenizer, say.
        rule: decides which rows are trained on.
        records_per_unit: from the study: the most records of one unit that are trained on.
        evaluation: of the study: then the records held out are units too, with their groups.
    """
    contents = rule.contents(table)
    splits, content_of = rule.splits(reader, table, contents), np.array(contents, dtype=object)
    train_rows = table[splits == Split.TRAIN]
    train, problems = reader.encode(train_rows, processor)
    evaluated = splits if evaluation is None else rule.decided(reader, table, contents)
    # what an evaluation counts gives way to no other row: one that is trained on could take away many
    held_out_rows = table[evaluated == Split.HOLDOUT]
    holdout, others = reader.encode(held_out_rows, processor)
    others += _on_both_sides(rule, reader, table, contents, splits) if evaluation is None else ()
    if rule.unit_column is not None:
        units = train_rows[rule.unit_column].tolist()
        train, copies, most_alike = group(train, units, records_per_unit=records_per_unit, key=rule.key), 0, 1
    else:
        unlike = rows_without_copies(train)
        copies, most_alike = len(train) - len(unlike), _most_alike(content_of[splits == Split.TRAIN], train, unlike)
        train = train.select(unlike)
    if evaluation is not None:
        held_out_contents = content_of[evaluated == Split.HOLDOUT]
        holdout, counted_alike = _units_of(
            holdout, held_out_rows, held_out_contents, rule, evaluation, records_per_unit=records_per_unit
        )
        most_alike = max(most_alike, counted_alike)
    facts = Facts(
        rows=len(table),
        train=len(train),
        units=train.unit_count,
        holdout=len(holdout),
        dropped=len(table) - len(train) - len(holdout),
        unusable=train.unusable,
        labels=reader.kind.counts(train),
        problems=[
            *in_words(problems + others),
            *counted(problems + others),
            *_valueless(rule, splits),
            *notes_on(table),
        ],
        copies=copies,
        most_alike=most_alike,
    )
    return Snapshot(train, holdout, facts, problems + others)


def _units_of(
    holdout: Records,
    rows: pd.DataFrame,
    contents: NDArray[np.object_],
    rule: SplitRule,
    evaluation: Evaluation,
    *,
    records_per_unit: int,
) -> tuple[Records, int]:
    """Return held-out records as the units that an evaluation counts, and the most of one content."""
    subgroup, most_alike = evaluation.subgroup, 1
    groups = None if subgroup is None else rows[rule.names.get(subgroup.column, subgroup.column)].tolist()
    units = None if rule.unit_column is None else rows[rule.unit_column].tolist()
    if units is None:
        grouped = with_groups(holdout, groups, subgroup)
        most_alike = _most_alike(contents, grouped, rows_without_copies(grouped))
    counted_once = held_out_units(
        holdout, units=units, groups=groups, subgroup=subgroup, records_per_unit=records_per_unit, key=rule.key
    )
    return counted_once, most_alike


def _most_alike(contents: NDArray[np.object_], records: Records, unlike: NDArray[np.int64]) -> int:
    """Return the most usable records of one content, of those without copies; 1 at the least."""
    return max(Counter(contents[unlike][records.usable[unlike]].tolist()).values(), default=1)


def _on_both_sides(
    rule: SplitRule, reader: Table, table: pd.DataFrame, contents: Sequence[str], splits: NDArray[np.object_]
) -> tuple[Problem, ...]:
    """Return a note on each row that is not held out because its content is trained on under another value."""
    if rule.split_by is None:
        return ()
    given_way = (rule.decided(reader, table, contents) == Split.HOLDOUT) & (splits != Split.HOLDOUT)
    kind = f"records are not held out: their content is trained on under another {rule.split_by}"
    return tuple(Problem(int(row), Note("it is trained on elsewhere", kind=kind)) for row in table.index[given_way])


def _valueless(rule: SplitRule, splits: NDArray[np.object_]) -> list[str]:
    rows = int((splits == Split.NO_UNIT).sum()) if rule.split_by is not None else 0
    return [f"{rows} rows name no {rule.split_by} and are not used."] if rows else []
