"""Record identity: which record a row is, by its content alone, and which unit a cell names.

The record index, the splits and the units use these functions alike, so no spelling makes two of one.

| version | a record is known by | its split follows from |
|---|---|---|
| 1 | each cell with content, as pandas typed its column; media by their file | every cell that a study reads |
| 2 | its content as a whole, and each cell that no other record of its dataset holds | its content as a whole |

Content is text after normalisation, in any case and spacing, whether it stands in one column or in several; the pixels
of an image; the samples of a recording. Labels are none. A register row says the version that a dataset has.
"""

import json
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from client.vault.ledger.record_index import normalised
from shared.records.tables import identity

if TYPE_CHECKING:
    import pandas as pd

WHOLE_NUMBER = re.compile(r"0*(\d+)(?:\.0+)?", re.ASCII)


def unit_name(value: str) -> str:
    """Return the unit that a cell names, in any case and spacing; empty if it names nobody.

    P1, p1 and ' P1 ' are one unit, and so are 1, 01 and 1.0: spreadsheets drop zeros and add fractions. Two people who
    are taken for one are protected together; one person taken for two would have twice the budget.
    """
    name = normalised(value)
    number = WHOLE_NUMBER.fullmatch(name)
    return number[1] if number else name


class RecordContents:
    """The content of a table's rows, each by itself.

    Guarantee: which record a row is depends on that row's content alone, whatever its labels and other rows hold.

    Args:
        table: as read.
        columns: those that hold content, in order.
    """

    def __init__(self, table: "pd.DataFrame", columns: Collection[str]) -> None:
        self._columns = [table[column].tolist() for column in columns]
        self._cells = [[_content(cell) for cell in column] for column in self._columns]
        self.rows = [" ".join(filter(None, row)) for row in zip(*self._cells, strict=True)]
        """Content of each row as one text; empty for a row that has none."""

    def of_one_record(self) -> list[str]:
        """Return the content of every cell that a single record holds.

        Such a cell tells its record in whatever columns it stands. One that several records hold, such as a fixed
        question, tells none.
        """
        holder: dict[str, str | None] = {}
        for column, texts in zip(self._columns, self._cells, strict=True):
            for cell, text, name in zip(column, texts, self.rows, strict=True):
                for form in (text, identity(cell)) if isinstance(cell, bytes) else (text,):
                    holder[form] = name if holder.get(form, name) == name else None
        return [form for form, name in holder.items() if name is not None]


def _content(cell: str | bytes) -> str:
    if isinstance(cell, bytes):
        return _media_content(cell)
    return normalised(" ".join(_listed(cell)) if cell.startswith("[") else cell)


def _listed(cell: str) -> list[str]:
    """Return the words of a list of words, which a table may also hold as one text."""
    try:
        words = json.loads(cell)
    except (ValueError, RecursionError):
        return [cell]
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else [cell]


def _media_content(content: bytes) -> str:
    """Return a digest of what an image shows or a recording plays; of the file, if it is neither."""
    if not content:
        return ""
    from shared.tasks.media_content import image_digest, sound_digest

    return image_digest(content) or sound_digest(content) or identity(content)
