"""Compute the cost of a study's rounds one after the other, and how many rounds a limit affords."""

from shared.checks import at_least, positive
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.noise_schedule import NoiseSchedule
from shared.search import largest

MOST_ROUNDS = 2**20


def epsilon_by_round(schedule: NoiseSchedule, *, rounds: int, local_steps: int) -> list[float]:
    """Return epsilon by RDP after each round, for a node that joins every round (rounds,)."""
    at_least(1, rounds=rounds, local_steps=local_steps)
    return [epsilon_rdp([schedule.release(number * local_steps)], schedule.delta) for number in range(1, 1 + rounds)]


def rounds_afforded(schedule: NoiseSchedule, *, local_steps: int, limit: float, spent_steps: int = 0) -> int:
    """Return how many more rounds with this noise a node's limit affords.

    Guarantee: so many more rounds cost no more than `limit`, and one more round would.

    Args:
        schedule: noise schedule of the study; the limit is compared at its delta.
        local_steps: noisy steps per round.
        limit: the most that the node's dataset may ever spend, as epsilon.
        spent_steps: steps of this same schedule that the node's ledger holds already.

    Returns:
        Rounds, at most `MOST_ROUNDS`.
    """
    positive(limit=limit)
    at_least(1, local_steps=local_steps)
    at_least(0, spent_steps=spent_steps)

    def fits(rounds: int) -> bool:
        return epsilon_rdp([schedule.release(spent_steps + rounds * local_steps)], schedule.delta) <= limit

    return largest(fits, most=MOST_ROUNDS)
