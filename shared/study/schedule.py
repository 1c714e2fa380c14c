"""Set the learning rates of a whole study: linear decay, known to everyone in advance."""

from shared.study.declaration import Study


def round_factors(study: Study, number: int) -> list[float]:
    """Return the factor of each step of a round, counted from 1; a round that only measures has factors of 1."""
    first, local_steps = study.measuring_rounds, study.training.local_steps
    if study.measures(number):
        return [1.0] * local_steps
    return learning_rate_factors(
        round_number=number - first, local_steps=local_steps, rounds=study.federation.rounds - first
    )


def learning_rate_factors(*, round_number: int, local_steps: int, rounds: int) -> list[float]:
    """Return the factors of a round's steps; over all rounds, counted from 1, they fall evenly from 1 towards 0."""
    first, total = (round_number - 1) * local_steps, rounds * local_steps
    return [1 - step / total for step in range(first, first + local_steps)]
