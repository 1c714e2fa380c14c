"""Draws the nodes that a round asks, where a study asks only some of those present, and who comes next in line.

A keyed hash of run, round and node decides: over rounds this is as good as random, and it gives the same nodes again
after a crash, in a simulation to the last bit. A node more or less present changes no other node's place in the order.
Nothing about privacy rests on the draw: it is no secret, no amplification is claimed for it, and noise is set for a
node that joins every round.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence


def in_order(nodes: Iterable[int], *, study_run: str, number: int) -> list[int]:
    """Return nodes in the order of a round: a cohort is its beginning, and is filled up with whoever comes next."""
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{study_run}/{number}/{node}".encode()).digest())


def draw_cohort(
    members: Sequence[int], *, cohort: int | None, study_run: str, number: int, asked_before: Collection[int] = ()
) -> list[int]:
    """Return the nodes that a round asks, sorted.

    Guarantee: whoever was asked before and is still present is asked again before anybody else is.

    Args:
        members: nodes that may be asked now.
        cohort: how many are; None or more than there are: all. As many as were asked before, if these were more.
        study_run: names the run.
        number: of the round.
        asked_before: nodes that the same round asked before the server was cut off; they may have paid for it.
    """
    if cohort is None or cohort >= len(members):
        return sorted(members)
    again = [node for node in members if node in asked_before]
    others = in_order(set(members) - set(again), study_run=study_run, number=number)
    return sorted([*again, *others[: max(0, cohort - len(again))]])
