"""Measure two ways of doing the same work, turn by turn, and give their ratio."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Pairs = list[tuple[float, float]]
"""Figures of turns: ours, theirs."""


@dataclass(frozen=True)
class Ratio:
    """A figure of ours, the peer's, and their ratio."""

    measure: str
    peer: str
    unit: str
    """Of the next two figures."""
    ours: float
    """Median."""
    theirs: float
    """Median."""
    ratio: float
    """Median of ours by theirs in neighbouring turns: slow drifts of the machine cancel."""
    low: float
    """Lower quartile of those ratios."""
    high: float
    """Upper quartile."""
    turns: int
    aim: str
    """For the ratio; empty where none was set."""


def interleaved(
    measure: str,
    peer: str,
    *,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    turns: int,
    warm_up: int = 2,
    aim: str = "",
) -> Ratio:
    """Time both ways in turn, the order swapped every time."""
    for _ in range(warm_up):
        ours()
        theirs()
    return ratio_of(measure, peer, alternating(lambda: seconds(ours), lambda: seconds(theirs), turns), aim=aim)


def alternating(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> Pairs:
    """Measure both ways in turn, the order swapped every time; return pairs of (ours, theirs)."""
    pairs = []
    for turn in range(turns):
        if turn % 2:
            their_value, our_value = theirs(), ours()
        else:
            our_value, their_value = ours(), theirs()
        pairs.append((our_value, their_value))
    return pairs


def ratio_of(measure: str, peer: str, pairs: Sequence[tuple[float, float]], *, unit: str = "s", aim: str = "") -> Ratio:
    """Return median and quartiles of pairs of (ours, theirs)."""
    ratios = [ours / theirs for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Ratio(
        measure=measure,
        peer=peer,
        unit=unit,
        ours=statistics.median(ours for ours, _ in pairs),
        theirs=statistics.median(theirs for _, theirs in pairs),
        ratio=middle,
        low=low,
        high=high,
        turns=len(pairs),
        aim=aim,
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
