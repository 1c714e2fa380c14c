"""What an evaluation counts is decided unit by unit: who else is there, or trained on, changes nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.vault.ledger.rows import IDENTITY_VERSION, DatasetTerms, Limit
from client.vault.ledger.state import LedgerState
from client.vault.records.held_out import GROUP, group_of, held_out_units
from client.vault.records.identity import unit_name
from client.vault.records.snapshot import SplitRule, take_snapshot
from shared.base_models.load import load_tokenizer
from shared.base_models.locate import find
from shared.records.ragged import Records, ragged
from shared.study.evaluation import Evaluation, Subgroup
from shared.study.sections import RECORD, Model
from shared.study.tasks import SequenceClassification
from shared.tasks.registry import task_kind
from shared.tasks.task_table import Table

KEY = bytes(range(16))
SEX = Subgroup(column="sex", values=("Female", "1"))


@pytest.mark.parametrize(
    ("cell", "group"),
    [("female", 0), (" FEMALE ", 0), ("1", 1), ("1.0", 1), ("01", 1), ("male", 2), ("", 2), (b"1", 2)],
)
def test_a_group_is_named_in_any_case_and_spacing_and_all_others_are_other(cell: Any, group: int) -> None:
    assert group_of(cell, SEX) == group


rows = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 1), st.sampled_from(["female", "1", "x"]), st.integers(0, 4)),
    max_size=24,
)


def units_of(held_out: Sequence[tuple[int, int, str, int]], *, units: bool) -> dict[Any, list[bytes]]:
    """Content of what is counted, by unit: of records their content itself."""
    fields = {
        "ids": ragged([[text] for text, _, _, _ in held_out], np.int32),
        "target": ragged([label for _, label, _, _ in held_out], np.int64),
    }
    names = [f"p{person}" for _, _, _, person in held_out]
    counted = held_out_units(
        Records(fields, np.ones(len(held_out), bool)),
        units=names if units else None,
        groups=[sex for _, _, sex, _ in held_out],
        subgroup=SEX,
        records_per_unit=2,
        key=KEY,
    )
    found: dict[Any, list[bytes]] = {}
    order = list(dict.fromkeys(names))
    for row in range(len(counted)):
        content = counted.content(row)
        name = content if counted.units is None else order[counted.units[row]]
        found.setdefault(name, []).append(content)
    return {name: sorted(contents) for name, contents in found.items()}


@given(rows, st.integers(0, 4))
@pytest.mark.guarantee("whether a held-out record counts, and in which group, depends on its own unit's records alone.")
def test_a_unit_counts_alike_whoever_else_is_held_out(held_out: list[tuple[int, int, str, int]], person: int) -> None:
    alone = units_of([row for row in held_out if row[3] == person], units=True)
    everybody = units_of(held_out, units=True)
    assert alone.get(f"p{person}", []) == everybody.get(f"p{person}", [])
    assert all(len(records) <= 2 for records in everybody.values())
    records = units_of(held_out, units=False)
    assert all(len(copies) == 1 for copies in records.values()), "copies are one record"
    assert set(records) >= set(units_of(held_out[:-1], units=False))


@pytest.fixture
def reader() -> Table:
    return Table(task_kind(SequenceClassification(kind="sequence-classification", labels=("no", "yes"))), {})


@pytest.fixture
def tokenizer(tiny_bert: Path) -> Any:
    return load_tokenizer(find(Model(source=str(tiny_bert))))


def held_out_texts(table: pd.DataFrame, reader: Table, tokenizer: Any, evaluation: Evaluation | None) -> int:
    rule = SplitRule(KEY, 0.5, split_by="page")
    snapshot = take_snapshot(table, reader, tokenizer, rule, records_per_unit=1, evaluation=evaluation)
    assert (GROUP in snapshot.holdout.fields) == (evaluation is not None)
    return len(snapshot.holdout)


def test_a_record_that_is_trained_on_takes_no_held_out_one_away_from_an_evaluation(
    reader: Table, tokenizer: Any
) -> None:
    pages = [f"page {number}" for number in range(20)]
    table = pd.DataFrame({"text": [f"good word{n}" for n in range(20)], "label": "no", "page": pages}, dtype=object)
    evaluation = Evaluation(epsilon=1.0)
    before = held_out_texts(table, reader, tokenizer, evaluation)
    taken_away = []
    for page in pages:
        more = table.assign(page=page)  # every content once more, on one page
        both = pd.concat([table, more], ignore_index=True)
        plain = held_out_texts(both, reader, tokenizer, None)
        taken_away.append(plain == 0)
        assert held_out_texts(both, reader, tokenizer, evaluation) >= before
    assert any(taken_away), "without an evaluation the held-out side gives way, so the case is a real one"


@pytest.mark.parametrize("unit", [None, "patient"])
@pytest.mark.parametrize("version", [1, IDENTITY_VERSION])
def test_the_ledger_knows_in_which_datasets_a_unit_may_stand_on_both_sides(
    version: int, unit: str | None, reader: Table
) -> None:
    rows = [(f"{word} {n}", label, f"{word}{n}") for n in range(60) for word in ("P", "p") for label in ("no", "yes")]
    table = pd.DataFrame(rows, columns=["text", "label", "patient"], dtype=object)
    rule = SplitRule(KEY, 0.5, unit_column=unit, identity_version=version)
    contents = rule.contents(table)
    sides: dict[str, set[Any]] = {}
    owners = contents if unit is None else [unit_name(cell) for cell in table[unit]]
    for owner, side in zip(owners, rule.splits(reader, table, contents), strict=True):
        sides.setdefault(owner, set()).add(side)
    terms = DatasetTerms(unit or RECORD, declared_size=50, holdout=0.5, identity_version=version)
    state = LedgerState(limits={"data": Limit(3.0, 1e-5)}, terms={"data": terms})
    assert any(len(found) > 1 for found in sides.values()) == state.on_both_sides("data")
