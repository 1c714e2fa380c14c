"""Persons' years as sentences."""

from typing import Any

import pandas as pd

from simulations.datasets.text import randhie


def year(**changes: Any) -> dict[str, Any]:
    usual = {
        "zper": 125024, "site": 1, "year": 1, "xage": 42.9, "female": 0, "black": 1.0, "income": 13748.8, "num": 4,
        "educdec": 12.0, "coins": 100, "idp": 1, "disea": 13.7, "mhi": 95.0, "physlm": 0.0, "hlthg": 1, "hlthf": 0,
        "hlthp": 0, "mdvis": 0, "totadm": 0,
    }  # fmt: skip
    return usual | changes


def test_a_year_is_written_with_what_is_known_before_it() -> None:
    table = randhie.years_of(pd.DataFrame([year(), year(year=2, mdvis=3), year(year=3, mdvis=1), year(year=5)]))
    assert table.text[0] == (
        "A man of 42 in good health, in a family of 4, 12 years of schooling, income 13700 dollars. The family pays "
        "100 percent of each bill, on a plan with deductibles. Index of chronic diseases 14, mental health 95 of 100."
    )
    assert [text.removeprefix(table.text[0]).strip() for text in table.text] == [
        "",
        "Saw no doctor in the year before.",
        "Saw a doctor 3 times in the year before.",
        "",
    ]
    assert table.label.tolist() == ["seldom", "often", "seldom", "seldom"]
    assert table.loc[1, ["person", "site", "race", "visits"]].tolist() == [125024, "place 1", "black", 3]


def test_what_the_year_led_to_is_in_no_text_of_that_year() -> None:
    one, other = (randhie.years_of(pd.DataFrame([year(mdvis=visits, totadm=visits)])) for visits in (0, 7))
    assert one.text[0] == other.text[0]


def test_unknown_schooling_is_left_out_and_children_are_called_so() -> None:
    text = randhie.sentences(year(educdec=float("nan"), xage=0.4, female=1, coins=0, idp=0, hlthg=0, physlm=1), 1)
    assert text.startswith("A girl of 0 in excellent health, in a family of 4, income")
    assert (
        "pays nothing of a bill." in text
        and "limited in what" in text
        and text.endswith("a doctor once in the year before.")
    )
