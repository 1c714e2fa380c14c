"""Read the labels of a table, whatever it calls them, as the labels of a study."""

import json
from collections.abc import Mapping, Sequence

from shared.tasks.cells import SEPARATOR, names_in
from shared.tasks.sequence_classification import OneLabel


class LabelNames:
    """Labels of a study by what a table has in their place.

    Args:
        declared: by its owner: 1 is positive.
        beside: by the file itself: 1 is pos. What its owner declares of either comes first.
        study: labels of the study; what a file says of a number that is one of them does not count.
    """

    def __init__(self, declared: Mapping[str, str], beside: Mapping[str, str], study: Sequence[str]) -> None:
        named = {number: declared.get(name, name) for number, name in beside.items() if number not in study}
        self._names = named | dict(declared)
        self._spelling, self._labels = OneLabel(tuple(self._names)), tuple(self._names.values())

    def read(self, cell: str, *, words: bool = False) -> str:
        """Return a cell with the study's labels in it; what has no name here stays as it is.

        Args:
            cell: a label, a list, or several labels with | between.
            words: true if blanks part labels, too, as the tags of a sentence's words.
        """
        if not self._names:
            return cell
        if (label := self._label(cell)) is not None:
            return label
        if (parts := names_in(cell.lstrip())) is not None:
            return json.dumps([self._named(part) for part in parts], ensure_ascii=False)
        if SEPARATOR in cell:
            return SEPARATOR.join(map(self._named, cell.split(SEPARATOR)))
        return " ".join(map(self._named, cell.split())) if words else cell

    def _named(self, part: str) -> str:
        label = self._label(part)
        return part if label is None else label

    def _label(self, name: str) -> str | None:
        number = self._spelling.target(name)
        return None if number is None else self._labels[number]
