"""Write numbers for people, with the separators of their language."""

import math
from datetime import datetime


def shown(value: float) -> str:
    """Write a value with about as many digits as it deserves; inf and nan by name."""
    size = abs(value)
    if not math.isfinite(value):
        return str(float(value))
    if 0 < size < 0.001:
        return f"{value:.1e}"
    if size < 10:
        return f"{value:.3f}"
    if size < 1000:
        return f"{value:.1f}"
    return f"{value:.0f}" if size < 1e6 else f"{value:.2e}"


def signed(value: float) -> str:
    """Write a difference with its sign, as `shown` writes a value."""
    return shown(value) if math.isnan(value) else ("-" if value < 0 else "+") + shown(abs(value))


def points(value: float) -> str:
    """Write a difference of shares in hundredths, with its sign."""
    return f"{100 * value:+.1f}"


class Figures:
    """Numbers in one language.

    Args:
        decimal: what stands before the first digit after the point.
        thousands: what stands between groups of three digits.
    """

    def __init__(self, decimal: str, thousands: str) -> None:
        self._table = str.maketrans({".": decimal, ",": thousands})

    def value(self, value: float) -> str:
        """Write a measured value."""
        return self._own(shown(value))

    def difference(self, value: float, *, in_points: bool) -> str:
        """Write a difference with its sign, in hundredths if it is one of shares."""
        return self._own(points(value) if in_points else signed(value))

    def epsilon(self, value: float) -> str:
        """Write an epsilon with three digits, never smaller than it is: it is a bound."""
        # what lies beyond the ninth digit is the arithmetic's
        return self._own(f"{math.ceil(round(value * 1000, 6)) / 1000:.3f}")

    def small(self, value: float) -> str:
        """Write a delta, a sampling rate or a noise multiplier as short as it goes."""
        return self._own(f"{value:.6g}")

    def count(self, value: int) -> str:
        """Write a whole number."""
        return self._own(f"{value:,}")

    def size(self, size: int) -> str:
        """Write a number of bytes."""
        if size < 1024:
            return f"{size} B"
        return self._own(f"{size / 1024:,.1f} KiB" if size < 2**20 else f"{size / 2**20:,.2f} MiB")

    def percent(self, value: float) -> str:
        """Write a percentage that is never rounded up to certainty."""
        digits = f"{value:.0f}" if value < 99 else f"{math.floor(value * 10) / 10:.1f}"
        return self._own(f"{digits} %")

    def times(self, value: float) -> str:
        """Write how many times as likely something is, with two digits."""
        return self._own(f"{value:.1f}" if value < 10 else f"{float(f'{value:.2g}'):,.0f}")

    def _own(self, text: str) -> str:
        return text.translate(self._table)


def moment(time: str) -> str:
    """Write a time of the ledger or of the run store as day and minute, in UTC; anything else as it is."""
    try:
        return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M}"
    except ValueError:
        return time
