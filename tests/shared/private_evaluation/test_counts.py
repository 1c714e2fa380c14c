"""One unit moves the counts by at most 1, whoever else is counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.private_evaluation.cells import STEPS, in_units
from shared.private_evaluation.counts import counts

LENGTH = 7
RECORDS = st.lists(st.tuples(st.integers(0, LENGTH - 1), st.integers(0, 5)), max_size=60)


@given(RECORDS, st.integers(0, 5))
@pytest.mark.guarantee(
    "one unit adds at most 1 in all to the counts, so it moves them by at most 1, l2, whatever others hold."
)
def test_one_unit_moves_the_counts_by_at_most_one(records: list[tuple[int, int]], removed: int) -> None:
    def histogram(kept: list[tuple[int, int]]) -> np.ndarray:
        return counts([place for place, _ in kept], [unit for _, unit in kept], length=LENGTH)

    moved = histogram(records) - histogram([record for record in records if record[1] != removed])
    own = histogram([record for record in records if record[1] == removed])
    assert (moved == own).all() and (moved >= 0).all(), "it adds its own share, whatever others hold"
    assert moved.sum() <= STEPS and np.linalg.norm(in_units(moved)) <= 1


def test_thirds_are_rounded_down() -> None:
    assert counts([0, 1, 2], [0, 0, 0], length=3).tolist() == [STEPS // 3] * 3
    assert 3 * (STEPS // 3) < STEPS, "what rounding leaves is lost, never added"


def test_records_without_units_count_once_each() -> None:
    assert counts([1, 1, 0], None, length=3).tolist() == [STEPS, 2 * STEPS, 0]
    assert counts([], None, length=3).tolist() == counts([], [], length=3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("places", "units"), [([3], None), ([-1], None), ([0], []), ([0], [-1])])
def test_what_is_in_no_cell_is_refused(places: list[int], units: list[int] | None) -> None:
    with pytest.raises(SettingsError, match="a cell and a unit"):
        counts(places, units, length=3)
