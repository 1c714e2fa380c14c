"""Ten spoken digits by eight synthetic voices: speech commands small enough to train on two cores.

The voices differ in accent, speaker and pitch, and each is a natural site. It is synthesised speech: a test of the
whole path, no evidence about people.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.errors import DataError
from simulations.datasets.audio.espeak import Synthesiser, Utterance
from simulations.datasets.audio.waves import SAMPLE_RATE, resampled, write_wave
from simulations.datasets.download import packages

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TAKES, SEED = 15, 20_240
LEAD_S, LOUDNESS, SIGNAL_TO_NOISE_DB = 0.15, (3_000, 12_000), (15, 35)


class Voice(NamedTuple):
    """One speaker; every take varies around these."""

    voice: str
    words_per_minute: int
    pitch: int


SPEAKERS = {
    "alice": Voice("en-us+f2", 150, 62),
    "bruce": Voice("en+m1", 140, 40),
    "chloe": Voice("en-gb-scotland+f3", 155, 58),
    "david": Voice("en-us+m3", 165, 35),
    "ellen": Voice("en-gb-x-rp+f4", 145, 66),
    "frank": Voice("en-gb-x-gbclan+m7", 150, 45),
    "grace": Voice("en-029+f5", 140, 55),
    "henry": Voice("en-gb-x-gbcwmd+m4", 135, 30),
}
SOURCE_NOTE = f"""# Spoken digits, synthesised

**Not recordings of people.** The digits zero to nine as eSpeak NG 1.52 speaks them (the package espeakng-loader 0.2.4;
the program is GPL-3.0, its output is not): {len(SPEAKERS)} voices of different accents, {TAKES} takes of each digit,
each take with its own speed, pitch, loudness, silence before it and noise behind it, all from one seed. Mono, 16 kHz.
The names of the speakers are made up.
"""


def build(folder: Path) -> None:
    """Write spoken-digits.csv and its recordings: audio (path beside the table), label, speaker, transcript."""
    with packages("spoken-digits") as wheels:
        synthesiser = Synthesiser(_unpacked(wheels))
        rows = [
            _recording(folder, synthesiser, name, word, take)
            for name in SPEAKERS
            for word in WORDS
            for take in range(TAKES)
        ]
    pd.DataFrame(rows).to_csv(folder / "spoken-digits.csv", index=False)
    (folder / "SOURCE.md").write_text(SOURCE_NOTE)


def _unpacked(wheels: Path) -> Path:
    wheel = next(wheels.glob("espeakng_loader-*.whl"), None)
    if wheel is None:
        raise DataError("Expected a wheel of espeakng-loader for this machine, got none.")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheels)
    return wheels / "espeakng_loader"


def _recording(folder: Path, synthesiser: Synthesiser, name: str, word: str, take: int) -> dict[str, str]:
    speaker = SPEAKERS[name]
    generator = np.random.default_rng([SEED, list(SPEAKERS).index(name), WORDS.index(word), take])
    pace, pitch = speaker.words_per_minute * generator.uniform(0.8, 1.25), speaker.pitch + generator.integers(-10, 11)
    spoken = synthesiser.say(Utterance(word, speaker.voice, int(pace), int(pitch)))
    path = Path("audio") / name / f"{word}-{take:02}.wav"
    write_wave(folder / path, in_a_room(resampled(spoken, synthesiser.sample_rate), generator))
    return {"audio": path.as_posix(), "label": word, "speaker": name, "transcript": word}


def in_a_room(spoken: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Vary loudness, put silence before, and noise behind what is said."""
    silence = np.zeros(int(generator.uniform(0, LEAD_S) * SAMPLE_RATE))
    scaled = spoken * (generator.uniform(*LOUDNESS) / max(float(np.abs(spoken).max(initial=0)), 1.0))
    power = float(np.sqrt(np.mean(scaled**2))) if len(scaled) else 0.0
    noise = power / 10 ** (generator.uniform(*SIGNAL_TO_NOISE_DB) / 20)
    recording = np.concatenate([silence, scaled])
    return recording + noise * generator.standard_normal(len(recording))
