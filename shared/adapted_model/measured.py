"""Rounds that measure instead of training: the names of what they move, and the rate at which it moves.

Loads no PyTorch, for plans and bounds ask as well.
"""

from shared.study.declaration import Study

MEASURED = "head.moments."
"""How the names of measured tensors begin."""
MEASURING_RATE = 0.01
"""Learning rate of a round that measures. Only proportions of the result count; small, so that no noise is too long for
the server."""


def is_measured(name: str) -> bool:
    """Tell whether a trainable tensor of this name moves in the rounds that measure, and in no other."""
    return name.startswith(MEASURED)


def head_rate(study: Study, round_number: int) -> float:
    """The head's learning rate in one round, before its decay: a round that measures has a rate of its own."""
    return MEASURING_RATE if study.measures(round_number) else study.training.learning_rate
