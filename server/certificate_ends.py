"""Says when certificates end: sixty days before in a log line a day and in `status`, always in a metric."""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from server.certificate_authority import (
    NODE_LIFETIME,
    SERVER,
    Issued,
    authorities,
    knows_newest_authority,
    node_certificate_ends,
)

log = logging.getLogger(__name__)
ANNOUNCED_BEFORE, OPERATOR_ANNOUNCED_BEFORE = timedelta(days=60), timedelta(days=14)
RENEW_SERVER, ROLL_OVER = "Renew it now: fedvault-server renew", "Roll it over now: fedvault-server renew --authority"


@dataclass(frozen=True)
class CertificateEnd:
    """The end of one certificate."""

    kind: Literal["server", "authority", "node"]
    name: str
    """Of the node; empty for the others."""
    ends: datetime
    announced: datetime
    """When it is time to say so."""
    remedy: str

    def due(self, now: datetime) -> bool:
        """Return true if it is time to say so."""
        return now >= self.announced

    def in_words(self, now: datetime) -> str:
        """Return a sentence: when it ends, in how many days, and what to do once it is time."""
        what = {"server": "The server's certificate", "authority": "The federation's authority"}
        whose = what.get(self.kind, f"{self.name}'s certificate")
        if now >= self.ends:
            return f"{whose} ended {self.ends:%Y-%m-%d}. {self.remedy}"
        if not self.due(now):
            return f"{whose} ends {self.ends:%Y-%m-%d}."
        return f"{whose} ends {self.ends:%Y-%m-%d}, in {(self.ends - now).days} days. {self.remedy}"


def certificate_ends(keys: Path, nodes: Collection[str]) -> list[CertificateEnd]:
    """Return when the certificates of server, authority and enrolled nodes end.

    An authority has to be rolled over while it can still sign for a whole lifetime: it is announced that much earlier.

    Raises:
        SettingsError: a certificate cannot be read, or there is no authority.
    """
    server, newest = Issued(keys / f"{SERVER}.crt", keys / f"{SERVER}.key"), authorities(keys)[-1]
    over = newest.expires - NODE_LIFETIME - ANNOUNCED_BEFORE
    ends = [
        CertificateEnd("server", "", server.expires, server.expires - ANNOUNCED_BEFORE, RENEW_SERVER),
        CertificateEnd("authority", "", newest.expires, over, ROLL_OVER),
    ]
    for name in nodes:
        end = node_certificate_ends(keys, name)
        if end is not None:
            remedy = f"Is that node on? Once it has ended: fedvault-server invite {name} --renew"
            ends.append(CertificateEnd("node", name, end, end - ANNOUNCED_BEFORE, remedy))
    return ends


def operator_lines(ends: Mapping[str, datetime], now: datetime) -> list[str]:
    """Return a sentence for every operator whose last certificate is about to end; nobody else waits for it.

    Args:
        ends: by operator, when the last certificate that is good does.
        now: the time.
    """
    return [
        f"Operator {name}'s certificate ends {end:%Y-%m-%d}, in {(end - now).days} days. "
        f"Another one: fedvault-server operator {name}"
        for name, end in ends.items()
        if end - now <= OPERATOR_ANNOUNCED_BEFORE
    ]


def without_newest_authority(keys: Path, nodes: Collection[str]) -> list[str] | None:
    """Return the nodes that do not know the new authority yet; None if none is being rolled over."""
    if len(authorities(keys)) == 1:
        return None
    return [name for name in nodes if not knows_newest_authority(keys, name)]


def due_lines(ends: Sequence[CertificateEnd], now: datetime) -> Iterator[str]:
    """Yield a sentence for every certificate that is about to end or has ended."""
    return (end.in_words(now) for end in ends if end.due(now))


def announce_daily(
    ends: Callable[[], Sequence[CertificateEnd]],
    stop: threading.Event,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    pause: timedelta = timedelta(days=1),
) -> None:
    """Log a line a day for every certificate that is about to end, until `stop`."""
    while True:
        try:
            for line in due_lines(ends(), now()):
                log.warning("%s", line)
        except Exception:  # a store or a file that is away for a while: nodes are served without this
            log.exception("When certificates end could not be read.")
        if stop.wait(pause.total_seconds()):
            return
