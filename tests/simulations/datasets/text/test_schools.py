"""Pupils' years as sentences."""

from typing import Any

import pandas as pd

from simulations.datasets.text import schools

NAN = float("nan")


def year(**changes: Any) -> dict[str, Any]:
    usual = {
        "id": 100017, "sch": 8, "gr": "K", "cltype": "small", "hdeg": "BS/BA", "exp": 3.0, "read": 476.0, "math": 480.0,
        "ses": "F", "schtype": "inner", "sx": "F", "eth": "B", "birthy": 1980.0,
    }  # fmt: skip
    return usual | changes


def test_a_year_is_written_with_what_is_known_before_it() -> None:
    table = schools.years_of(pd.DataFrame([year(), year(gr="1", read=514.0), year(gr="3", sch=9)]))
    assert table.text[0] == (
        "A girl born in 1980 in kindergarten, in a small class of an inner-city school, with free lunch. "
        "The teacher has 3 years of teaching and a bachelor's degree."
    )
    assert table.text[1].endswith(" A year ago above the middle in reading and not above it in maths.")
    assert "A year ago" not in table.text[2]
    assert table.label.tolist() == ["above", "not above", "not above"]
    assert table.loc[2, ["pupil", "site", "ethnicity", "reading"]].tolist() == [100017, "school 09", "black", 476]


def test_years_without_a_score_are_left_out() -> None:
    table = schools.years_of(pd.DataFrame([year(read=NAN), year(id=2, math=NAN), year(gr="1"), year(id=2, gr="1")]))
    assert table.pupil.tolist() == [2, 100017, 2] and table.maths.tolist() == ["", 480, 480]
    assert not table.text.str.contains("A year ago").any()


def test_ethnicity_and_score_are_in_no_text_of_that_year() -> None:
    one, other = (
        schools.years_of(pd.DataFrame([year(eth=eth, read=read)])) for eth, read in (("B", 400.0), ("W", 500.0))
    )
    assert one.text[0] == other.text[0] and one.label[0] != other.label[0]


def test_what_is_unknown_is_left_out() -> None:
    text = schools.sentences(year(sx=NAN, birthy=NAN, ses=NAN, exp=NAN, hdeg=NAN))
    assert text == "A child in kindergarten, in a small class of an inner-city school."
    assert schools.sentences(year(exp=NAN)).endswith("The teacher has a bachelor's degree.")
