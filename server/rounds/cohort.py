"""Draws the nodes that a round asks, where a study asks only some of those present, and who comes next in line.

A keyed hash of run, round and node decides: over rounds this is as good as random, and it gives the same nodes again
after a crash, in a simulation to the last bit. A node more or less present changes no other node's place in the order.
Nothing about privacy rests on the draw: it is no secret, no amplification is claimed for it, and noise is set for a
node that joins every round.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence


def in_order(nodes: Iterable[int], *, study_run: str, number: int, last_in_line: Collection[int] = ()) -> list[int]:
    """Return nodes in the order of a round: a cohort is its beginning, and is filled up with whoever comes next."""

    def place(node: int) -> tuple[bool, bytes]:
        return node in last_in_line, hashlib.sha256(f"{study_run}/{number}/{node}".encode()).digest()

    return sorted(nodes, key=place)


def draw_cohort(
    members: Sequence[int],
    *,
    cohort: int | None,
    study_run: str,
    number: int,
    asked_before: Collection[int] = (),
    last_in_line: Collection[int] = (),
    quorum: int = 1,
) -> list[int]:
    """Return the nodes that a round asks, sorted.

    Guarantee: whoever was asked before and is still present is asked again before anybody else is.
    Guarantee: whoever is last in line is asked only if there is no quorum without it.

    Args:
        members: nodes that may be asked now.
        cohort: how many are; None or more than there are: all. As many as were asked before, if these were more.
        study_run: names the run.
        number: of the round.
        asked_before: nodes that the same round asked before the server was cut off; they may have paid for it.
        last_in_line: nodes that kept missing rounds.
        quorum: fewest nodes that are asked, if there are so many.
    """
    again = [node for node in members if node in asked_before]
    others = in_order(set(members) - set(again), study_run=study_run, number=number, last_in_line=last_in_line)
    ready = sum(node not in last_in_line for node in others)
    wanted = len(members) if cohort is None else cohort
    fewest = max(quorum - len(again), 0)
    return sorted([*again, *others[: max(min(wanted - len(again), ready), fewest)]])
