"""Read numbers, truth values and lists of names from cells, each cell by itself."""

import json
import math
import re
import unicodedata

SEPARATOR = "|"
WHOLE_NUMBER = re.compile(r"(-?)0*+(?:([1-9]\d*+)|(?<=0))(?:\.0+|,0{1,2})?", re.ASCII)
"""What is matched is not given back (*+): a long cell of zeros would take a time that is quadratic in its length."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+,(?!\d{3}\b)\d+", re.ASCII)
"""A comma before three digits may stand between thousands, and is none."""
MOST_COMPOSED = 1000
"""A longer name is compared as it stands: putting accents in order can take a time that is quadratic in its length."""


def number_in(text: str) -> float | None:
    """Return the finite number that a text spells; None for another text, and for underscores as Python has them."""
    try:
        number = float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        return None
    return number if "_" not in text and math.isfinite(number) else None


def value_of(label: str) -> str | None:
    """Return the whole number or truth value that a label stands for: 1, 01 and 1.0 are one, and True and true."""
    number = WHOLE_NUMBER.fullmatch(label)
    return number[1] + (number[2] or "0") if number else label.lower() if label.lower() in ("true", "false") else None


def composed(name: str) -> str:
    """Return a name with each accent in one character with its letter, where there is such a character (NFC)."""
    return unicodedata.normalize("NFC", name) if len(name) <= MOST_COMPOSED else name


def listed(cell: str) -> list[str]:
    """Return the labels that a cell names: a list, as JSON lines and Parquet hold it, or names with | between."""
    names = names_in(cell)
    return cell.split(SEPARATOR) if names is None else names


def names_in(cell: str) -> list[str] | None:
    """Return the names in a cell that holds a list, None for another."""
    if not cell.startswith("["):
        return None
    try:
        names = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    plain = isinstance(names, list) and all(isinstance(name, str | int | float) for name in names)
    return [str(name) for name in names] if plain else None
