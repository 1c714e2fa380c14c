"""Two tables on which fairness is measured, as sentences: incomes of the 1994 census (Adult), and COMPAS.

Sex and race stand beside the text, not in it. Other columns still tell of them: that is what such a study measures.

Of Adult, household roles (husband, wife) are dropped, as they name the sex, the census's weights, and the number that
repeats education. Its natural sites are kinds of employer.

COMPAS holds people who were arrested in Broward County, Florida, **under their names and dates of birth**. Both are
never read, nor are case numbers and dates. Rows are those of ProPublica's own analysis: the screening within 30 days of
the arrest. It has no natural sites. Few may share an age, a race and a charge: these are people's records.

`person` numbers the rows. Many texts are alike, and records that are alike count once: let the unit be the person.
"""

import io
from collections.abc import Hashable
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import read_member
from simulations.datasets.package_index import indexed_wheel

RAW = "fairness/data/raw/"
MOST_DAYS = 30
WORK = {
    "Private": "private employers",
    "Self-emp-not-inc": "self-employed",
    "Self-emp-inc": "own companies",
    "Local-gov": "local government",
    "State-gov": "state government",
    "Federal-gov": "federal government",
    "Without-pay": "without pay",
    "Never-worked": "never worked",
    "?": "not stated",
}
ADULT = (
    "age", "workclass", "education", "marital-status", "occupation", "race", "sex", "capital-gain", "capital-loss",
    "hours-per-week", "native-country", "income-per-year",
)  # fmt: skip
COMPAS = (
    "sex", "age", "race", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count", "c_charge_degree",
    "c_charge_desc", "days_b_screening_arrest", "decile_score", "two_year_recid",
)  # fmt: skip
ADULT_NOTE = """# Adult, also called Census Income

B. Becker and R. Kohavi, UCI Machine Learning Repository, 1996, CC BY 4.0: the 32,561 training rows, from the US census
bureau's survey of 1994, as the package fairness 0.1.8 (Apache-2.0) carries them. The text is ours, made from columns.
"""
COMPAS_NOTE = """# COMPAS, two years

J. Larson, S. Mattu, L. Kirchner and J. Angwin, ProPublica, 2016: public records of people screened in Broward County,
Florida, in 2013 and 2014, as the package fairness 0.1.8 (Apache-2.0) carries them. ProPublica names no licence; for
research. Names, dates of birth, case numbers and dates are not here. Arrests are not crimes, and a new one depends on
who is policed: a table to measure fairness on, never one to judge people by. The text is ours, made from columns.
"""


def build_adult(folder: Path) -> None:
    """Write adult.csv: text, label, site, sex, race, person."""
    with indexed_wheel("fairness") as wheels:
        table = adult_of(read_member(wheels, "fairness", f"{RAW}adult.csv"))
    table.to_csv(folder / "adult.csv", index=False)
    (folder / "SOURCE.md").write_text(ADULT_NOTE)


def build_compas(folder: Path) -> None:
    """Write compas.csv: text, label, sex, race, score (COMPAS's own, 1 to 10), person."""
    with indexed_wheel("fairness") as wheels:
        table = compas_of(read_member(wheels, "fairness", f"{RAW}propublica-recidivism.csv"))
    table.to_csv(folder / "compas.csv", index=False)
    (folder / "SOURCE.md").write_text(COMPAS_NOTE)


def adult_of(content: bytes) -> pd.DataFrame:
    """Write Adult's rows as records.

    Raises:
        DataError: it is another table.
    """
    raw = _read(content, ADULT)
    return pd.DataFrame(
        {
            "text": [adult_sentences(row) for row in raw.to_dict("records")],
            "label": [
                "more than 50,000" if income == ">50K" else "at most 50,000" for income in raw["income-per-year"]
            ],
            "site": [WORK[kind] for kind in raw["workclass"]],
            "sex": raw["sex"].str.lower(),
            "race": raw["race"].str.replace("-", " "),
            "person": raw.index,
        }
    )


def compas_of(content: bytes) -> pd.DataFrame:
    """Write COMPAS's rows as records; what names a person is not even read.

    Raises:
        DataError: it is another table.
    """
    raw = _read(content, COMPAS)
    raw = raw[pd.to_numeric(raw["days_b_screening_arrest"]).abs() <= MOST_DAYS].reset_index(drop=True)
    return pd.DataFrame(
        {
            "text": [compas_sentences(row) for row in raw.to_dict("records")],
            "label": ["arrested" if again == "1" else "not arrested" for again in raw["two_year_recid"]],
            "sex": raw["sex"].str.lower(),
            "race": raw["race"],
            "score": raw["decile_score"],
            "person": raw.index,
        }
    )


def adult_sentences(row: dict[Hashable, str]) -> str:
    """Describe a person of the census without sex, race and income; what is not stated is left out."""
    stated = {
        "Education": row["education"],
        "Occupation": row["occupation"],
        "Marital status": row["marital-status"],
        "Native country": row["native-country"],
    }
    parts = [f"{name}: {value.replace('-', ' ')}." for name, value in stated.items() if value != "?"]
    money = {"Capital gain": row["capital-gain"], "Capital loss": row["capital-loss"]}
    parts += [f"{name}: {value} dollars." for name, value in money.items() if value != "0"]
    return f"Age {row['age']}, works {row['hours-per-week']} hours a week. {' '.join(parts)}"


def compas_sentences(row: dict[Hashable, str]) -> str:
    """Describe an arrest without the person's sex, race and COMPAS's score."""
    juvenile = sum(int(row[f"juv_{kind}_count"]) for kind in ("fel", "misd", "other"))
    degree = "felony" if row["c_charge_degree"] == "F" else "misdemeanor"
    charge = f"{degree}: {row['c_charge_desc']}" if row["c_charge_desc"] else degree
    return (
        f"Age {row['age']}, earlier charges: {row['priors_count']}, as a juvenile: {juvenile}. Charged with a {charge}."
    )


def _read(content: bytes, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        return pd.read_csv(io.BytesIO(content), usecols=columns, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DataError("Expected the package's table, got another one.", hint=str(error)) from None
