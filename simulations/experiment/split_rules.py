"""Which rows are trained on, and which are held out: by a keyed hash, by what the data say, or for validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.vault.records.snapshot import SplitRule
from client.vault.records.splits import Split
from shared.errors import DataError
from shared.tasks.task_table import Table
from simulations.experiment.scenario import HELD_OUT, VALIDATION, Scenario, SimulationData

MARK = "fedvault: split"
"""Column that is added where the data say what each row is for; no column of a table is called so."""
FILES = "first rows and names of files that were read after the table"
TRAIN, TEST = "train", "test"
MEANINGS = {
    TRAIN: TRAIN, "training": TRAIN,
    VALIDATION: VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    TEST: TEST, "testing": TEST,
}  # fmt: skip
"""What papers call their splits."""


@dataclass(frozen=True)
class ValidationRule(SplitRule):
    """A rule by which nothing that another holds out is used, and a share of what it trains on is held out instead."""

    test: SplitRule = field(kw_only=True)
    """The other rule."""
    validation: SplitRule = field(kw_only=True)
    """The same with another key: it decides which of the training records are held out."""

    def decided(self, reader: Table, table: pd.DataFrame, contents: Sequence[str]) -> NDArray[np.object_]:
        """Decide every row's split by both rules."""
        by_test = self.test.decided(reader, table, contents)
        by_validation = self.validation.decided(reader, table, contents)
        within = np.where(by_validation == Split.HOLDOUT, Split.HOLDOUT, Split.TRAIN)
        splits = np.where(by_test == Split.TRAIN, within, by_test)
        return np.where(by_test == Split.HOLDOUT, Split.DROPPED, splits).astype(object)


@dataclass(frozen=True)
class DeclaredRule(SplitRule):
    """A rule by which the data themselves say what each row is for; `used` still leaves some out."""

    held_out_as: str = TEST
    """Which rows are held out; those that are neither these nor for training are not used."""

    def decided(self, reader: Table, table: pd.DataFrame, contents: Sequence[str]) -> NDArray[np.object_]:
        """Decide every row's split by its mark."""
        used, marks = super().decided(reader, table, contents), table[MARK].to_numpy()
        by_mark = np.where(
            marks == TRAIN, Split.TRAIN, np.where(marks == self.held_out_as, Split.HOLDOUT, Split.DROPPED)
        )
        return np.where(used == Split.TRAIN, by_mark, used).astype(object)


def rule_of(scenario: Scenario, table: pd.DataFrame) -> SplitRule:
    """Return the rule by which every site splits; the seed stands in for a real node's secret.

    Args:
        scenario: as declared.
        table: all rows, with their marks if the data say what they are for.
    """
    data, key = scenario.simulation.data, key_of("roles", scenario)
    rule = SplitRule(key, data.holdout, data.unit_column, data.used, data.columns, split_by=data.split_by)
    plain = rule
    if MARK in table:
        held_out_as = held_out_mark(data, table)
        rule = DeclaredRule(**vars(plain) | {"holdout": 0.0}, held_out_as=held_out_as)
        if held_out_as == VALIDATION:
            return rule
    if data.evaluate == HELD_OUT:
        return rule
    # `used` has already chosen by the other key
    within = replace(plain, key=key_of("validation", scenario), used=1.0)
    return ValidationRule(**vars(plain), test=rule, validation=within)


def held_out_mark(data: SimulationData, table: pd.DataFrame) -> str:
    """Return which marked rows are evaluated: validation rows for choosing settings, if the data have any."""
    has_validation = bool((table[MARK] == VALIDATION).any())
    return VALIDATION if data.evaluate == VALIDATION and has_validation else TEST


def key_of(purpose: str, scenario: Scenario) -> bytes:
    """Return the key of a keyed hash, from the seed of what is held out."""
    return hashlib.sha256(f"fedvault simulation {purpose} {scenario.simulation.seed_of('holdout')}".encode()).digest()


def read_source(
    reader: Table, data: SimulationData, source: Path, others: Sequence[str], optional: str
) -> pd.DataFrame:
    """Read the table of a scenario, and the files of its own splits after it, each row with its mark.

    Args:
        reader: of the task's columns.
        data: as declared.
        source: the table.
        others: further columns.
        optional: one of them that files of a global test may lack.

    Raises:
        DataError: a file cannot be read, or a mark is none.
    """
    if data.split_column is None and data.test is None and data.validation is None:
        return reader.read(source, *others)
    named = [] if data.split_column is None else [data.split_column]
    table = reader.read(source, *others, *named)
    table[MARK] = [_meaning(cell, data.split_column) for cell in table[data.split_column]] if named else TRAIN
    parts, folder = [table], source if source.is_dir() else source.parent
    files = list[tuple[int, str]]()
    for mark, file in ((VALIDATION, data.validation), (TEST, data.test)):
        if file is None:
            continue
        wanted = [column for column in others if not (data.global_test and column == optional)]
        path = folder / Path(file).expanduser()
        if not path.exists():
            raise DataError(
                f"Expected simulation.data.{mark} to be a file, got {file!r}, which is not there.",
                hint=f"Looked in {path.resolve().parent}: it is relative to the folder of simulation.data.source.",
            )
        part = reader.read(path, *wanted)
        files.append((sum(map(len, parts)), file))
        parts.append(part.assign(**{MARK: mark}))
    rows = pd.concat(parts, ignore_index=True).fillna("") if len(parts) > 1 else table
    rows.attrs = {**table.attrs, FILES: files}
    missing = [mark for mark in (TRAIN, TEST) if not (rows[MARK] == mark).any()]
    if missing and not (missing == [TEST] and data.evaluate == VALIDATION):
        raise DataError(f"Expected rows for training and for testing in {source}, got none marked {missing[0]!r}.")
    return rows


def _meaning(cell: str, column: str | None) -> str:
    meaning = MEANINGS.get(str(cell).strip().lower())
    if meaning is None:
        raise DataError(f"Expected 'train', 'validation' or 'test' in column {column!r}, got {str(cell)!r}.")
    return meaning
