"""Has the simulated sites evaluate an adapter as nodes do: the same units, cells and scale of noise, from the seed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.private_evaluation.answers import Answer
from server.private_evaluation.collecting import summary, summary_of_sum
from server.rounds.participants import Participants
from server.secure_sum.opening import Opened
from shared.files import write_atomically
from shared.private_evaluation.choice import Choice, choose, compares
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.messages import Status, Vector
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes

COUNTS = ".counts"
"""Suffix of the file with the noisy counts themselves, beside that of the estimates."""


class SimulatedEvaluations:
    """The private evaluations of one arm, each kept in a file, so that a run that is resumed repeats none.

    Args:
        study: of the arm, with an evaluation.
        folder: for the files.
        counts: returns every site's noisy counts by its name, given the rounds that led to an adapter. Under a secure
            sum they are its parts without their masks, which cancel: only their sum goes further.
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
            evaluated = (_summed if self._study.federation.secure_sum else _by_site)(self._study, number, counts)
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


def _by_site(study: Study, number: int, counts: dict[str, NDArray[np.int64]]) -> Evaluated:
    answers = {name: Answer(Status.EVALUATED.name.lower(), histogram) for name, histogram in counts.items()}
    return summary(study, number, answers, late=[])


def _summed(study: Study, number: int, counts: dict[str, NDArray[np.int64]]) -> Evaluated:
    """Return what the sum of the sites' counts tells, as a server that opens it has it."""
    opened = Opened(tuple(sorted(counts)), np.sum([*counts.values()], axis=0, dtype=np.int64))
    sizes = sum_sizes(len(counts), study.federation)
    return summary_of_sum(study, number, opened, {}, sizes, late=[])


def read_evaluations(folder: Path) -> Sequence[Evaluated]:
    """Return the evaluations that were carried out, in order."""
    return [Evaluated.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
