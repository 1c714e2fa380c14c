"""Learning rates over a whole study: linear decay, known to everyone in advance."""


def learning_rate_factors(*, round_number: int, local_steps: int, rounds: int) -> list[float]:
    """Factors of the steps of one round (counted from 1): 1 at the study's first step, falling evenly towards 0."""
    first, total = (round_number - 1) * local_steps, rounds * local_steps
    return [1 - step / total for step in range(first, first + local_steps)]
