"""Private evaluations as the run engine keeps them, with noise, and without a node."""

import numpy as np

from server.private_evaluation.answers import Answer
from server.private_evaluation.collecting import summary
from server.private_evaluation.stored import StoredEvaluations
from shared.private_evaluation.cells import STEPS, Cells
from shared.private_evaluation.noise import sigma
from tests.support.server_page import ServerInPieces


def evaluate(server: ServerInPieces, number: int, right: float, *, small: str = "", units: int = 300) -> None:
    """Keep an evaluation of a run that counts right and wrong answers: every node's counts, and what follows.

    Args:
        server: with a run.
        number: rounds before it.
        right: share of right answers.
        small: name of a node that holds out next to nothing.
        units: that each other node holds out.
    """
    study = server.store.run(server.run).study
    storage, cells = StoredEvaluations(server.store, server.run, server.observer), Cells.of(study)
    noise, groups = np.random.default_rng(number), cells.shape[0]
    for name, node in server.numbers.items():
        held_out = 2 if name == small else units
        exact = np.tile([right * held_out / groups, (1 - right) * held_out / groups], groups)
        noised = np.round((exact + noise.normal(0, sigma(study), cells.length)) * STEPS).astype(np.int64)
        storage.keep(number, node, name, Answer("evaluated", noised))
    storage.finish(summary(study, number, storage.answers(number), late=[]))
