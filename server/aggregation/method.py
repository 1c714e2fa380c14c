"""What an aggregation method must do, and the registry of them."""

from typing import ClassVar, Protocol

from server.aggregation.mean import UniformMean
from shared.protocol.messages import Vector


class Aggregation(Protocol):
    """Collects one round's updates."""

    linear: ClassVar[bool]
    """Whether the result depends on the updates only through their sum, as secure aggregation requires."""

    def add(self, update: Vector) -> None:
        """Fold one accepted update in."""
        ...

    def result(self, current: Vector) -> Vector:
        """The next global adapter."""
        ...


def start(method: str, length: int) -> Aggregation:
    """A fresh collection for one round."""
    return {"ffa": UniformMean, "fedit": UniformMean}[method](length)
