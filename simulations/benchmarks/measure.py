"""Time two ways of doing the same work, turn by turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How long ours took beside the peer."""

    measure: str
    peer: str
    ours_s: float
    """Median seconds."""
    peer_s: float
    """Median seconds."""
    ratio: float
    """Median of the ratios of neighbouring turns: slow drifts of the machine cancel."""
    low: float
    """Lower quartile of those ratios."""
    high: float
    """Upper quartile."""
    turns: int


def interleaved(
    measure: str, peer: str, *, ours: Callable[[], object], theirs: Callable[[], object], turns: int, warm_up: int = 2
) -> Ratio:
    """Run both ways in turn, the order swapped every time."""
    for _ in range(warm_up):
        ours()
        theirs()
    pairs = []
    for turn in range(turns):
        if turn % 2:
            peer_s, ours_s = _seconds(theirs), _seconds(ours)
        else:
            ours_s, peer_s = _seconds(ours), _seconds(theirs)
        pairs.append((ours_s, peer_s))
    return ratio_of(measure, peer, pairs)


def ratio_of(measure: str, peer: str, pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Sum up pairs of seconds (ours, peer)."""
    ratios = [ours / theirs for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Ratio(
        measure=measure,
        peer=peer,
        ours_s=statistics.median(ours for ours, _ in pairs),
        peer_s=statistics.median(theirs for _, theirs in pairs),
        ratio=middle,
        low=low,
        high=high,
        turns=len(pairs),
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
