"""Texts that somebody else may have written, as a terminal can show them."""

import unicodedata


def printable(text: str, keep: str = "\n") -> str:
    """Return a text in which what a terminal would obey, or hide, stands as an escape.

    Guarantee: a text of a study or an offer reaches a terminal without control characters, and inside its own line.

    Args:
        text: that somebody else may have written.
        keep: characters that stay what they are.
    """
    return "".join(
        mark
        if mark.isprintable() or mark in keep or unicodedata.category(mark) == "Zs"
        else mark.encode("unicode_escape").decode()
        for mark in text
    )


def one_line(text: str) -> str:
    """Return a text as one printable line: another line would look as if the command said it."""
    return printable(" ".join(text.split()), keep="")
