"""Decides who is last in line after missing rounds: it costs the others no time, and itself no budget.

A node that is silent when a round closes has spent its step on it, and the reply that comes late is dropped. After two
such rounds in a row it sits out, first one round, then twice as many after each further miss: a machine that is slower
than the rest of the study pays for few rounds that cannot use it. One answer in time, whichever, ends that.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MISSES_IN_A_ROW = 2
LONGEST_BREAK = 16
"""Rounds."""


def sits_out_until(records: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return the nodes that have missed two rounds in a row or more, each with the last round that it sits out.

    Args:
        records: of the finished rounds, in order.
    """
    missed, until = Counter[int](), dict[int, int]()
    for record in records:
        for node in record["asked"]:
            if node in record["missing"]:
                missed[node] += 1
                pause = min(LONGEST_BREAK, 2 ** max(0, missed[node] - MISSES_IN_A_ROW))
                until[node] = record["round"] + pause
            else:
                missed[node] = 0
    return {node: until[node] for node, misses in missed.items() if misses >= MISSES_IN_A_ROW}


def last_in_line(records: Sequence[Mapping[str, Any]], number: int) -> frozenset[int]:
    """Return the nodes that a round asks only if it cannot make its quorum without them."""
    return frozenset(node for node, until in sits_out_until(records).items() if number <= until)
