"""Counts what is refused, and says it in a few lines a minute: what strangers send must not fill the disk.

Guarantee: however much is refused, of however many, a minute of it is a bounded number of short lines.
"""

import logging
from collections import Counter
from ipaddress import IPv6Address, ip_address

log = logging.getLogger(__name__)
EVERY_S = 60.0
AT_ONCE = 20
SHOWN = 8
REMEMBERED = 10_000
LONGEST = 64
OTHERS = "others"
NETWORK_BITS = 64
"""An IPv6 network of this length is one organisation's: its addresses count as one."""


class Refusals:
    """Keeps what was refused in this minute, by who asked and why."""

    def __init__(self) -> None:
        self._before: frozenset[tuple[str, str]] = frozenset()
        self._pending: Counter[tuple[str, str]] = Counter()
        self._seen: set[tuple[str, str]] = set()
        self._lines = 0

    def count(self, who: str, why: str) -> None:
        """Count one refusal; the first of its kind is logged at once, if few were in this minute.

        Args:
            who: a node or an address.
            why: a few words.
        """
        kind = (who[:LONGEST], why[:LONGEST])
        if kind not in self._seen and len(self._seen) >= REMEMBERED:
            kind = (OTHERS, why[:LONGEST])
        new = kind not in self._seen and kind not in self._before
        self._seen.add(kind)
        if new and self._lines < AT_ONCE:
            self._lines += 1
            log.warning("%s: %s", *kind)
        else:
            self._pending[kind] += 1

    def summed_up(self) -> str:
        """Return a sentence on what no line has told yet, if anything, and begin the next minute."""
        text = _sentence(self._pending) if self._pending else ""
        self._before, self._seen, self._lines = frozenset(self._seen), set(), 0
        self._pending.clear()
        return text

    def report(self) -> None:
        """Log that sentence, once a minute."""
        if text := self.summed_up():
            log.warning("%s", text)


def _sentence(counts: Counter[tuple[str, str]]) -> str:
    shown = counts.most_common(SHOWN)
    rest = counts.total() - sum(count for _kind, count in shown)
    parts = [f"{who}: {why} ({count})" for (who, why), count in shown] + ([f"more ({rest})"] if rest else [])
    return f"{counts.total()} more refused within {EVERY_S:.0f} s: " + "; ".join(parts)


def origin(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    network = IPv6Address(int(parsed) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS))
    return f"{network}/{NETWORK_BITS}"
