"""Tell which of some names a mistyped one was meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def meant(name: str, names: Iterable[object]) -> str | None:
    """Return the name that is most like another, whatever its case and the blanks around it; None if none is."""
    plain = {text.strip().lower(): text for text in map(str, names)}
    close = get_close_matches(name.strip().lower(), plain, n=1)
    return plain[close[0]] if close else None
