"""The parts of a page, as values: what they say, not how it looks. HTML and PDF are written from the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["plain", "ours", "warning"]
"""How a row, bar or line stands out: `ours` is what the page is about, `warning` is what nothing protects."""


@dataclass(frozen=True)
class Code:
    """A digest or a name in a fixed-width face; it may be broken anywhere."""

    text: str


@dataclass(frozen=True)
class Link:
    """Texts that lead to other pages, each with its address; on paper only the texts are left."""

    places: Sequence[tuple[str, str]]


Cell = str | Code | Link


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    text: str
    level: Literal[1, 2] = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `lead` is larger, `box` stands apart, `small` is for what is only looked up."""

    text: str
    kind: Literal["plain", "lead", "box", "small"] = "plain"


@dataclass(frozen=True)
class Card:
    """One figure that decides something, with its name above and a few words below."""

    name: str
    figure: str
    words: str = ""


@dataclass(frozen=True)
class Cards:
    """Figures side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Facts:
    """Named facts, one a line."""

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    cells: Sequence[Cell]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row."""

    header: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Picture:
    """A drawing of `charts`; what it says is in the drawing itself, for whoever cannot see it."""

    svg: str
    says: str


Block = Heading | Paragraph | Cards | Facts | Table | Picture
