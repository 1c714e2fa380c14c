"""A record's role is its own affair."""

from typing import cast

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from client.vault.records.snapshot import SplitRule
from client.vault.records.splits import Split, split_of, splits_of
from shared.errors import SettingsError
from shared.tasks.task_table import Table

KEY = b"k" * 32
Rows = st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["a", "b"])), min_size=1, max_size=30)


@pytest.mark.guarantee("whether a record is used, held out or dropped depends on that record alone.")
@given(Rows, st.integers(0, 29))
def test_removing_a_row_changes_no_other_rows_role(rows: list[tuple[str, str]], removed: int) -> None:
    def decide(kept: list[tuple[str, str]]) -> list[Split]:
        return splits_of(kept, key=KEY, holdout=0.3, used=0.7)

    removed %= len(rows)
    before = decide(rows)
    assert decide(rows[:removed] + rows[removed + 1 :]) == before[:removed] + before[removed + 1 :]


def test_fractions_are_as_asked() -> None:
    found = splits_of([(f"text {i}", "x") for i in range(4000)], key=KEY, holdout=0.2, used=0.5)
    for kind, rate in ((Split.DROPPED, 0.5), (Split.HOLDOUT, 0.1), (Split.TRAIN, 0.4)):
        low, high = stats.binom.ppf([5e-7, 1 - 5e-7], 4000, rate)  # false alarm 1e-6
        assert low <= found.count(kind) <= high
        assert not low <= found.count(kind) * 2 / 3 <= high


def test_using_fewer_records_moves_none_between_training_and_holdout() -> None:
    rows = [(f"text {i}", "x") for i in range(500)]
    full = splits_of(rows, key=KEY, holdout=0.2)
    half = splits_of(rows, key=KEY, holdout=0.2, used=0.5)
    assert all(h in (f, Split.DROPPED) for f, h in zip(full, half, strict=True))


def test_key_decides_and_fields_do_not_run_together() -> None:
    def fates(text: str, label: str) -> list[Split]:
        return [split_of(text, label, key=bytes([i] * 32), holdout=0.5) for i in range(40)]

    assert len(set(fates("a", "b"))) == 2
    assert fates("ab", "c") != fates("a", "bc")


def test_impossible_fractions_are_refused() -> None:
    for holdout, used in ((1.0, 1.0), (-0.1, 1.0), (0.2, 0.0), (float("nan"), 1.0)):
        with pytest.raises(SettingsError, match="Expected"):
            split_of("t", "l", key=KEY, holdout=holdout, used=used)


@pytest.mark.guarantee(
    "where a column decides, its cell alone says if a row is trained on, and no content is on both sides."
)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_column_decides_alone_and_no_content_is_on_both_sides(rows: list[tuple[int, int]]) -> None:
    table = pd.DataFrame({"text": [f"text {text}" for text, _ in rows], "doc": [f"doc {doc}" for _, doc in rows]})
    rule, contents = SplitRule(b"k" * 16, 0.4, split_by="doc"), table["text"].tolist()
    splits = rule.splits(cast(Table, None), table, contents)
    trained, held_out = (set(table["text"][splits == side]) for side in (Split.TRAIN, Split.HOLDOUT))
    assert not trained & held_out
    for row, split in enumerate(splits.tolist()):
        (alone,) = rule.splits(cast(Table, None), table[row : row + 1], contents[row : row + 1])
        assert (split == Split.TRAIN) == (alone == Split.TRAIN), "whatever other rows hold"
        assert split != Split.HOLDOUT or alone == Split.HOLDOUT
