"""The interface of an aggregation method, and the registry of methods."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from server.aggregation.mean import UniformMean
from shared.errors import SettingsError
from shared.protocol.messages import Vector
from shared.study.declaration import Study


class Aggregation(Protocol):
    """Collects one round's updates."""

    def add(self, update: Vector) -> None:
        """Add one accepted update."""
        ...

    def result(self, current: Vector) -> Vector:
        """Return the next global adapter."""
        ...


class Method(NamedTuple):
    """A way of combining updates."""

    start: Callable[[int], Aggregation]
    """Starts one round's collection for vectors of a length."""
    adapters: tuple[str, ...]
    """The values of adapter.method that it is meant for."""
    linear: bool = True
    """Whether its result follows from the sum of the updates alone, as a secure sum gives it."""


METHODS = {
    "ffa": Method(UniformMean, ("ffa-lora", "ia3", "head-only")),
    "fedit": Method(UniformMean, ("lora", "dora")),
}
"""Methods by their name in federation.aggregation. Nodes take any: it says what is done with what they released."""


def method_for(study: Study) -> Method:
    """Return the method that a study names.

    Raises:
        SettingsError: this server has no method of that name, or it is meant for other adapters.
    """
    name, adapter = study.federation.aggregation, study.adapter.method
    method = METHODS.get(name)
    if method is None:
        raise SettingsError(
            f"Expected federation.aggregation among {', '.join(METHODS)}, got {name!r}.",
            hint="These are the methods that this server knows.",
        )
    if adapter not in method.adapters:
        suitable = " or ".join(repr(other) for other, known in METHODS.items() if adapter in known.adapters)
        raise SettingsError(
            f"Expected federation.aggregation = {suitable} for adapter.method = {adapter!r}, got {name!r}.",
            hint=f"{name!r} goes with {', '.join(method.adapters)}.",
        )
    if study.federation.secure_sum is not None and not method.linear:
        linear = ", ".join(other for other, known in METHODS.items() if known.linear)
        raise SettingsError(
            f"Expected a federation.aggregation of sums alone beside federation.secure_sum, got {name!r}.",
            hint=f"Linear are: {linear}.",
        )
    return method
