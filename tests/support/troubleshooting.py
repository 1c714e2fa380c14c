"""Rows of a troubleshooting page, and the situations that bring their sentences about."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.documents import text_of

ANYTHING = "…"


@dataclass(frozen=True)
class Row:
    """One row: what a reader sees, the sentence that is printed, what to do."""

    symptom: str
    sentence: str
    remedy: str

    def is_in(self, printed: str) -> bool:
        """True if the sentence was printed, however its lines were broken; … stands for anything."""
        parts = [re.escape(" ".join(part.split(" "))) for part in self.sentence.split(ANYTHING)]
        return re.search(".*?".join(parts), " ".join(printed.split())) is not None


def rows_of(page: str) -> list[Row]:
    """Every row of a page's tables, in order."""
    cells = [line.strip("| ").split(" | ") for line in text_of(page).splitlines() if line.startswith("| ")]
    return [Row(symptom, sentence.strip("`"), remedy) for symptom, sentence, remedy in cells if symptom != "symptom"]


class Situations:
    """What brings each row's sentence about, by the row's symptom."""

    def __init__(self) -> None:
        self.by_symptom: dict[str, Callable[[Any], str]] = {}

    def __call__(self, symptom: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
        """Name the row that a function brings about; it returns what was printed."""

        def keep(situation: Callable[[Any], str]) -> Callable[[Any], str]:
            assert symptom not in self.by_symptom, f"{symptom!r} has two situations"
            self.by_symptom[symptom] = situation
            return situation

        return keep
