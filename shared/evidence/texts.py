"""The catalogue of a report's texts, by language: the same keys and the same words in braces in each."""

import tomllib
from functools import cache
from pathlib import Path

from shared.evidence.facts import Language
from shared.evidence.figures import Figures

FILES: dict[Language, str] = {"en": "english.toml", "de": "german.toml"}


class Texts:
    """The texts of one language, and its figures."""

    def __init__(self, language: Language) -> None:
        self._texts = catalogue(language)
        self.language = language
        self.figures = Figures(self._texts["decimal"], self._texts["thousands"])

    def __call__(self, key: str, /, **words: str) -> str:
        """Return a text with its words filled in."""
        return self._texts[key].format(**words)


@cache
def catalogue(language: Language) -> dict[str, str]:
    """Return every text of a language by its key."""
    return tomllib.loads(Path(__file__).with_name(FILES[language]).read_text())
