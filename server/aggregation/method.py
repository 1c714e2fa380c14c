"""The interface of an aggregation method, and the registry of methods."""

from typing import Protocol

from server.aggregation.mean import UniformMean
from shared.protocol.messages import Vector


class Aggregation(Protocol):
    """Collects one round's updates."""

    def add(self, update: Vector) -> None:
        """Add one accepted update."""
        ...

    def result(self, current: Vector) -> Vector:
        """Return the next global adapter."""
        ...


def start(method: str, length: int) -> Aggregation:
    """Start a new collection for one round."""
    return {"ffa": UniformMean, "fedit": UniformMean}[method](length)
