"""Has the simulated sites evaluate an adapter as nodes do: the same units, cells and scale of noise, from the seed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.private_evaluation.answers import Answer
from server.private_evaluation.asking import summary
from server.rounds.participants import Participants
from shared.files import write_atomically
from shared.private_evaluation.choice import Choice, choose, compares
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.messages import Status, Vector
from shared.study.declaration import Study

COUNTS = ".counts"
"""Suffix of the file with the noisy counts themselves, beside that of the estimates."""


class SimulatedEvaluations:
    """The private evaluations of one arm, each kept in a file, so that a run that is resumed repeats none.

    Args:
        study: of the arm, with an evaluation.
        folder: for the files.
        counts: returns every site's noisy counts by its name, given the rounds that led to an adapter.
        within: cuts an adapter back as a server does before it is sent, given the number of the next round.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        counts: Callable[[int, Vector], dict[str, NDArray[np.int64]]],
        within: Callable[[int, Vector], Vector],
    ) -> None:
        self._study, self._folder, self._counts, self._within = study, folder, counts, within

    def after(self, _participants: Participants, number: int, adapter: Vector) -> bool:
        """Carry out the evaluation that is due after so many rounds, if there is one that is not done.

        Returns:
            Whether the study declares that the run ends here, by the rule that a server has.
        """
        if number not in self._study.evaluated_after:
            return False
        path = self._folder / f"{number:05d}.json"
        if not path.exists():
            counts = self._counts(number, self._within(number + 1, adapter))
            answers = {name: Answer(Status.EVALUATED.name.lower(), histogram) for name, histogram in counts.items()}
            evaluated = summary(self._study, number, answers, late=[])
            self._folder.mkdir(parents=True, exist_ok=True)
            plain = {name: histogram.tolist() for name, histogram in counts.items()}
            write_atomically(path.with_suffix(COUNTS), json.dumps(plain).encode())
            write_atomically(path, evaluated.model_dump_json().encode())
        choice = read_choice(self._study, self._folder)
        return choice is not None and choice.ends_after(number)


def read_choice(study: Study, folder: Path) -> Choice | None:
    """Return the choice among the evaluations that were carried out; None if the study declares none."""
    if not compares(study):
        return None
    released = {
        int(path.stem): {
            name: np.array(counts, np.int64)
            for name, counts in json.loads(path.with_suffix(COUNTS).read_text()).items()
        }
        for path in folder.glob("*.json")
    }
    return choose(study, released)


def read_evaluations(folder: Path) -> Sequence[Evaluated]:
    """Return the evaluations that were carried out, in order."""
    return [Evaluated.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
