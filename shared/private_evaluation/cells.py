"""Lay out what an evaluation counts: the cells follow from the study alone, never from the records.

| cells | axes |
|---|---|
| `right-wrong` | group, outcome |
| `confusion` | group, true label, predicted label |
| `scores` of a task with one label | group, bin of the confidence, outcome |
| `scores` of any other | group, bin of the score |
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.study.declaration import Study
from shared.study.evaluation import CellKind, group_names, has_one_label

OUTCOMES = ("right", "wrong")
RIGHT, WRONG = range(2)
STEPS = 2**24
"""Steps of the public grid in one unit: counts are whole numbers of them."""


class Axis(NamedTuple):
    """One direction of the table of cells."""

    name: str
    """`group`, `truth`, `prediction`, `bin` or `outcome`."""
    values: tuple[str, ...]
    """A bin has its lower end as its name."""


class Outcome(NamedTuple):
    """A model's answer to one held-out record, beside the truth."""

    score: float
    """How good it is, from 0 to 1; 1 is right. What is no number counts as 0."""
    confidence: float = 0.0
    """The model's, from 0 to 1, in a task with one label."""
    truth: int = 0
    """Index of the true label, in a task with one label."""
    prediction: int = 0
    """Index of the predicted one."""


@dataclass(frozen=True)
class Cells:
    """The cells of a study's evaluation, in the order in which they are sent: that of a C array.

    Guarantee: number, names and order of the cells follow from the study alone.
    """

    kind: CellKind
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, study: Study) -> "Cells":
        """Return the cells that a study declares.

        Raises:
            SettingsError: it declares no evaluation.
        """
        evaluation = study.evaluation
        if evaluation is None:
            raise SettingsError("Expected a study with [evaluation], got one without.")
        groups, labels = Axis("group", group_names(evaluation)), tuple(getattr(study.task, "labels", ()))
        outcome = Axis("outcome", OUTCOMES)
        bins = Axis("bin", tuple(f"{number / evaluation.bins:.4g}" for number in range(evaluation.bins)))
        axes = {
            "right-wrong": (groups, outcome),
            "confusion": (groups, Axis("truth", labels), Axis("prediction", labels)),
            "scores": (groups, bins, outcome) if has_one_label(study.task) else (groups, bins),
        }[evaluation.cells]
        return cls(evaluation.cells, axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis; a histogram is reshaped to it."""
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def length(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    @property
    def names(self) -> list[tuple[str, ...]]:
        """Name of each cell by axis, in order."""
        return list(product(*(axis.values for axis in self.axes)))

    def index(self, group: int, outcome: Outcome) -> int:
        """Return the cell in which a record of this group counts."""
        rightness = RIGHT if outcome.score >= 1 else WRONG
        if self.kind == "right-wrong":
            place: tuple[int, ...] = (group, rightness)
        elif self.kind == "confusion":
            place = (group, outcome.truth, outcome.prediction)
        elif len(self.axes) == 3:
            place = (group, self._bin(outcome.confidence), rightness)
        else:
            place = (group, self._bin(outcome.score))
        return int(np.ravel_multi_index(place, self.shape))

    def _bin(self, score: float) -> int:
        bins = self.shape[1]
        return min(int(min(score, 1.0) * bins), bins - 1) if score > 0 else 0


def in_units(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts in units, from counts in steps of the grid."""
    units: NDArray[np.float64] = histogram / STEPS
    return units
