"""Reads the evaluations of a run from the run store. Loads neither Flower nor torch: commands show it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.run_store.store import Store
from server.run_store.values import Run
from shared.private_evaluation.choice import Choice, choose, compares
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.messages import Status


class RunEvaluations(NamedTuple):
    """The evaluations of a run, and what follows from them."""

    all: Sequence[Evaluated]
    """Those that are over, in order."""
    choice: Choice | None
    """Among them; None if the study declares none, or there is none yet."""
    of_adapter: Evaluated | None
    """That of the adapter that is handed out, so far; None if no site answered any."""

    def handed_out(self, last: int) -> int:
        """Return how many rounds led to the adapter that is handed out, of a run whose last round this is."""
        return last if self.choice is None else self.choice.handed_out(last)


def evaluations_of(store: Store, run: Run) -> RunEvaluations:
    """Return the evaluations of a run, and the choice among them that its study declares.

    Raises:
        DataError: the study of the run is damaged.
    """
    over = store.evaluations.of_run(run.id)
    evaluated = [Evaluated.model_validate(one) for one in over.values()]
    answered = [one for one in evaluated if one.estimates]
    choice = None
    if over and compares(study := run.study):
        choice = choose(study, {number: _counts(store, run.id, number) for number in over})
    of_adapter = answered[-1] if answered else None
    if choice is not None:
        of_adapter = next((one for one in answered if one.number == choice.handed_out(run.round)), of_adapter)
    return RunEvaluations(evaluated, choice, of_adapter)


def _counts(store: Store, run: str, number: int) -> dict[str, NDArray[np.int64]]:
    """Return the counts of the sites that sent some."""
    answers = store.evaluations.counts(run, number)
    counted = Status.EVALUATED.name.lower()
    return {
        site: np.array(plain["histogram"], np.int64) for site, plain in answers.items() if plain["status"] == counted
    }
