"""Find the place where a condition turns: double until it has turned, then halve the interval.

Every condition turns once: it is false on one side of some number, and true on the other.
"""

from collections.abc import Callable


def largest(fits: Callable[[int], bool], *, most: int) -> int:
    """Return the largest whole number from 1 to `most` that fits; 0 if none does.

    Args:
        fits: true up to some number, and false beyond it.
        most: nothing larger is tried.
    """
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def smallest(fits: Callable[[int], bool], *, least: int, most: int) -> int | None:
    """Return the smallest whole number from `least` to `most` that fits; None if none does.

    Args:
        fits: false up to some number, and true beyond it.
        least: nothing smaller is tried.
        most: nothing larger is tried.
    """
    if not fits(most):
        return None
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def doubled_until(fits: Callable[[float], bool], start: float, *, most: float) -> tuple[float, float] | None:
    """Double a number until it fits; return the last one that did not (or 0) and the first that does.

    Returns None if the number grows beyond `most` first.
    """
    low, high = 0.0, start
    while not fits(high):
        low, high = high, 2 * high
        if high > most:
            return None
    return low, high


def halved(
    fits: Callable[[float], bool],
    low: float,
    high: float,
    *,
    near: Callable[[float, float], bool],
    middle: Callable[[float, float], float] = lambda low, high: (low + high) / 2,
) -> tuple[float, float]:
    """Narrow an interval around the place where a condition turns true.

    Args:
        fits: taken to be false at `low` and true at `high`; neither is tried.
        low: lower end.
        high: upper end.
        near: true once two ends are close enough.
        middle: the number to try between two ends; default: their mean.

    Returns:
        The two ends at last: nothing below the first is known to fit, and the second fits.
    """
    while not near(low, high):
        tried = middle(low, high)
        low, high = (low, tried) if fits(tried) else (tried, high)
    return low, high
