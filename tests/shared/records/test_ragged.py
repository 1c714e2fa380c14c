"""Records of several sites, put together."""

from collections.abc import Callable

import numpy as np

from shared.records.ragged import Records, joined, with_units


def test_units_of_different_places_stay_different_where_records_are_joined(
    make_records: Callable[..., Records],
) -> None:
    one, other = (with_units(make_records(4, seed=seed), np.array([0, 1, 1, 2])) for seed in (1, 2))
    both = joined([one, other])
    assert both.units is not None and both.units.tolist() == [0, 1, 1, 2, 3, 4, 4, 5]
    assert joined([make_records(4), make_records(4)]).units is None
