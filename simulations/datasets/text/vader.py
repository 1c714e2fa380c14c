"""The VADER ground truth: four kinds of text rated by people (Hutto and Gilbert, ICWSM 2014), as one table.

Tweets, Amazon review snippets, movie review snippets and New York Times editorial snippets: four real sites. The label
is `positive` if the mean rating, from -4 to 4, is above 0, else `negative`; texts rated within 0.5 of neutral are left
out. Amazon reviews and editorials come snippet by snippet: `document` says which one a snippet is from, and
`collection` names the site again, for these alone.
"""

import io
import tarfile
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages

INNER = "vaderSentiment-3.3.1/additional_resources/hutto_ICWSM_2014.tar.gz"
SITES = {
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "movies": "movieReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
NEUTRAL = 0.5
SOURCE_NOTE = """# VADER ground truth

Human sentiment ratings by C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text", ICWSM 2014. From the source package vaderSentiment 3.3.1, MIT licence; the snippets are their
authors'. Label: rating > 0; rows with |rating| <= 0.5 left out. Rating: from -4 to 4. Document: of Amazon reviews and
editorials.
"""


def build(folder: Path) -> None:
    """Write vader.csv: text, label, rating, document, collection, site."""
    with packages("vader", "--no-binary", "vaderSentiment") as archives:
        table = extract(next(archives.glob("vader*.tar.gz")))
    table.to_csv(folder / "vader.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def extract(archive: Path) -> pd.DataFrame:
    """Read the four files out of the source package; columns text, label, rating, document, collection, site.

    Raises:
        DataError: the archive does not hold what it should.
    """
    try:
        with tarfile.open(archive) as outer:
            packed = outer.extractfile(INNER)
            if packed is None:
                raise KeyError(INNER)
            with tarfile.open(fileobj=io.BytesIO(packed.read())) as inner:
                tables = [_site(inner, site, name) for site, name in SITES.items()]
    except (KeyError, tarfile.TarError, ValueError) as error:
        raise DataError(
            f"Expected the VADER ground truth in {archive.name}, got another archive.", hint=str(error)
        ) from None
    return pd.concat(tables, ignore_index=True)


def _site(inner: tarfile.TarFile, site: str, name: str) -> pd.DataFrame:
    member = inner.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
    if member is None:
        raise KeyError(name)
    # not splitlines(): a snippet may hold other line separators
    lines = [line for line in member.read().decode("utf-8", "replace").split("\n") if line.strip()]
    rows = [(name, float(rating), text.strip()) for name, rating, text in (line.split("\t", 2) for line in lines)]
    rated = [row for row in rows if abs(row[1]) > NEUTRAL]
    documents = [f"{site} {name.split('_')[0]}" if "_" in name else "" for name, _, _ in rated]
    return pd.DataFrame(
        {
            "text": [text for _, _, text in rated],
            "label": ["positive" if rating > 0 else "negative" for _, rating, _ in rated],
            "rating": [rating for _, rating, _ in rated],
            "document": documents,
            "collection": [site if document else "" for document in documents],
            "site": site,
        }
    )
