"""Census incomes and arrests as sentences, without what tells race, sex or a name."""

import pytest

from shared.errors import DataError
from simulations.datasets.text import fairness

CENSUS = (
    b"age,workclass,fnlwgt,education,education-num,marital-status,occupation,relationship,race,sex,capital-gain,"
    b"capital-loss,hours-per-week,native-country,income-per-year\n"
    b"39,State-gov,77516,Bachelors,13,Never-married,Adm-clerical,Not-in-family,White,Male,2174,0,40,United-States,<=50K\n"
    b"50,?,83311,HS-grad,9,Widowed,?,Wife,Asian-Pac-Islander,Female,0,5,13,?,>50K\n"
)
ARRESTS = (
    "id,name,first,last,sex,dob,age,race,juv_fel_count,decile_score,juv_misd_count,juv_other_count,priors_count,"
    "days_b_screening_arrest,c_case_number,c_charge_degree,c_charge_desc,decile_score,priors_count,two_year_recid\n"
    "7,ann lee,ann,lee,Female,1990-02-03,26,Other,1,4,0,2,5,{days},13CF,{degree},{charge},4,5,1\n"
)


def test_people_of_the_census_are_described_without_sex_race_and_income() -> None:
    first, second = fairness.adult_of(CENSUS).to_dict("records")
    assert first == {
        "text": "Age 39, works 40 hours a week. Education: Bachelors. Occupation: Adm clerical. Marital status: Never "
        "married. Native country: United States. Capital gain: 2174 dollars.",
        "label": "at most 50,000",
        "site": "state government",
        "sex": "male",
        "race": "White",
        "person": 0,
    }
    assert second["text"] == (
        "Age 50, works 13 hours a week. Education: HS grad. Marital status: Widowed. Capital loss: 5 dollars."
    )
    assert (second["site"], second["race"]) == ("not stated", "Asian Pac Islander")


def test_arrests_come_without_names_and_dates() -> None:
    table = fairness.compas_of(ARRESTS.format(days=-1, degree="F", charge="Battery").encode())
    assert table.to_dict("records") == [
        {
            "text": "Age 26, earlier charges: 5, as a juvenile: 3. Charged with a felony: Battery.",
            "label": "arrested",
            "sex": "female",
            "race": "Other",
            "score": "4",
            "person": 0,
        }
    ]
    without_charge = fairness.compas_of(ARRESTS.format(days=0, degree="M", charge="").encode())
    assert without_charge.text[0].endswith("Charged with a misdemeanor.")


@pytest.mark.parametrize("days", ["", "31", "-31"])
def test_arrests_long_before_or_after_the_screening_are_left_out(days: str) -> None:
    assert fairness.compas_of(ARRESTS.format(days=days, degree="F", charge="Battery").encode()).empty


def test_another_table_is_refused() -> None:
    for read in (fairness.adult_of, fairness.compas_of):
        with pytest.raises(DataError, match="got another one"):
            read(b"age,name\n3,ann\n")
