"""Decides how many connections there may be, and which one ends where there is one too many.

A connection shows whose it is only after its TLS handshake. Until then, and without a certificate of the federation,
it is a stranger's. Strangers have few places: a new one takes the oldest stranger's, of the address that has the most.
So a node always finds a place, and a connection that does nothing is the one that goes.

Guarantee: connections without a certificate, however many and idle, keep no node out.
Guarantee: a node has at most `per_node` connections, and an address at most `per_address` without a certificate.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from server.gateway.turns import TokenBuckets


@dataclass(frozen=True)
class ConnectionLimits:
    """The most connections that may be open, and the longest that they may take."""

    in_all: int = 1024
    """Connections at a time; what is left of the process's descriptors is for everything else."""
    strangers: int = 512
    """Connections without a certificate, at a time."""
    per_address: int = 256
    """Those of one address."""
    per_node: int = 16
    """Connections under one certificate's key; Flower's client uses two."""
    per_s: float = 20.0
    """Connections a second that an address may open and show no certificate on, in the long run."""
    burst: int = 200
    """Such connections at once."""
    handshake_s: float = 10.0
    """From the acceptance to the end of the TLS handshake."""
    header_s: float = 10.0
    """From there, or from the last answer, to a complete header; and for the rest of a body that nobody wants."""
    idle_s: float = 75.0
    """From an answer to a node to the first byte of its next request; a new connection costs more than an open one."""
    write_s: float = 30.0
    """The longest that a client may read nothing of an answer."""
    goodbye_s: float = 5.0
    """The longest that the end of a connection may take."""


class Door:
    """Keeps every connection, as a stranger's or a node's."""

    def __init__(self, limits: ConnectionLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._arrivals = TokenBuckets(limits.per_s, limits.burst, clock)
        self._strangers: dict[Hashable, str] = {}
        self._addresses: dict[str, OrderedDict[Hashable, None]] = {}
        self._nodes: dict[Hashable, str] = {}
        self._keys: dict[str, OrderedDict[Hashable, None]] = {}

    def arrives(self, connection: Hashable, address: str) -> tuple[Hashable, str] | None:
        """Let a connection in; return one that has to end, perhaps this one, and why."""
        if not self._arrivals.take(address):
            return connection, "too many connections a second"
        out: tuple[Hashable, str] | None = None
        own = self._addresses.get(address, ())
        if len(own) >= self.limits.per_address:
            out = next(iter(own)), "too many connections without a certificate"
        elif len(self._strangers) >= self.limits.strangers or len(self) >= self.limits.in_all:
            if not self._strangers:
                return connection, "no connection is free"
            most = max(self._addresses.values(), key=len)
            out = next(iter(most)), "too many connections without a certificate, of all addresses together"
        if out is not None:
            self.leaves(out[0])
        self._strangers[connection] = address
        self._addresses.setdefault(address, OrderedDict())[connection] = None
        return out

    def shows(self, connection: Hashable, key: str) -> tuple[Hashable, str] | None:
        """Note whose certificate a connection has shown; return one of the same node that has to end, and why."""
        address = self._strangers.get(connection)
        if address is None:
            return None
        self._arrivals.give_back(address)
        self.leaves(connection)
        own, out = self._keys.setdefault(key, OrderedDict()), None
        if len(own) >= self.limits.per_node:
            out = next(iter(own)), "too many connections of one node"
            self.leaves(out[0])
        self._nodes[connection] = key
        self._keys.setdefault(key, OrderedDict())[connection] = None
        return out

    def leaves(self, connection: Hashable) -> None:
        """Forget a connection; nothing if it is forgotten already."""
        for places, groups in ((self._strangers, self._addresses), (self._nodes, self._keys)):
            group = places.pop(connection, None)
            if group is not None:
                del groups[group][connection]
                if not groups[group]:
                    del groups[group]

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._strangers) + len(self._nodes)
