"""Recorded telephone prompts with transcripts: real speech by professional speakers, from the packages of Asterisk.

`prompts` is English, by one speaker, for speech recognition. `prompt-languages` has five languages, for telling which
is spoken; only English and Spanish share a speaker, so a model may learn the others by their voices.
"""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.audio.waves import SAMPLE_RATE, read_wave, resampled, write_wave
from simulations.datasets.download import debian_packages

SHORTEST_S, LONGEST_S = 0.3, 15.0
NO_SPEECH = ("[", "(", "<")
TOPICS = {"vm": "voicemail", "conf": "conference", "confbridge": "conference", "agent": "agents", "queue": "queue"}


class Recordings(NamedTuple):
    """One language's prompts."""

    folder: str
    speaker: str


LANGUAGES = {
    "en": Recordings("en_US_f_Allison", "Allison Smith"),
    "es": Recordings("es_MX_f_Allison", "Allison Smith"),
    "fr": Recordings("fr_CA_f_June", "June Wallack"),
    "it": Recordings("it_IT_m_Carlo", "Carlo Flora"),
    "ru": Recordings("ru_RU_f_IvrvoiceRU", "ivrvoice.ru"),
}
SOURCE_NOTE = """# Telephone prompts

The sound files of the telephone exchange Asterisk, recorded by professional speakers: English and Spanish by Allison
Smith, French by June Wallack (CC BY-SA 3.0), Italian by Carlo Flora, Russian provided by Maxim Topal, ivrvoice.ru
(CC BY 3.0). From Debian's packages asterisk-core-sounds-*. Changed: brought from 8 to 16 kHz; sounds without speech,
clips below 0.3 or above 15 seconds, and clips without a transcript are left out. `topic` is the first part of a file's
name. Each language has one speaker, and only English and Spanish share theirs: a model can tell the others by the
voice. That is a weakness of this set, not a success of the model.
"""


def build_prompts(folder: Path) -> None:
    """Write prompts.csv and its English recordings: audio, transcript, topic, speaker."""
    _build(folder, "prompts", ("en",))


def build_languages(folder: Path) -> None:
    """Write prompt-languages.csv and its recordings: audio, label (en, es, fr, it, ru), transcript, topic, speaker."""
    _build(folder, "prompt-languages", tuple(LANGUAGES))


def transcripts(content: str) -> dict[str, str]:
    """Read lines of `name: text`; comments and sounds without speech are left out."""
    pairs = (line.partition(": ") for line in content.lstrip("\ufeff").splitlines() if not line.startswith(";"))
    return {name.strip(): " ".join(text.split()) for name, _, text in pairs if text and text[0] not in NO_SPEECH}


def topic(name: str) -> str:
    """Return a prompt's topic by its file's name: the folder, or the part before the first hyphen."""
    head, slash, _ = name.partition("/")
    return head if slash else TOPICS.get(name.partition("-")[0], "general")


def _build(folder: Path, name: str, languages: tuple[str, ...]) -> None:
    wanted = [f"asterisk-core-sounds-{language}{part}" for language in languages for part in ("", "-wav")]
    with debian_packages(wanted) as root:
        rows = [row for language in languages for row in _language(root / "usr/share", folder, language)]
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def _language(share: Path, folder: Path, language: str) -> list[dict[str, str]]:
    recordings = LANGUAGES[language]
    listed = share / f"doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    if not listed.is_file():
        raise DataError(f"Expected the transcripts of the prompts in {listed.name}, got nothing.")
    rows = []
    for name, text in sorted(transcripts(gzip.decompress(listed.read_bytes()).decode()).items()):
        source = share / "asterisk/sounds" / recordings.folder / f"{name}.wav"
        if source.is_file() and (samples := _speech(source)) is not None:
            path = Path("audio") / language / f"{name}.wav"
            write_wave(folder / path, samples)
            row = {"audio": path.as_posix(), "label": language, "transcript": text}
            rows.append(row | {"topic": topic(name), "speaker": recordings.speaker})
    return rows


def _speech(source: Path) -> NDArray[np.float64] | None:
    samples = resampled(*read_wave(source.read_bytes()))
    return samples if SHORTEST_S <= len(samples) / SAMPLE_RATE <= LONGEST_S else None
