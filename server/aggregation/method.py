"""The interface of an aggregation method, and the registry of methods; other packages may bring more.

A method reads nothing but public numbers and what nodes have released, so it costs no privacy whatever it computes.
Whatever it makes is cut back to where nodes accept it (`server/rounds/update_bounds.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from server.aggregation.geometric_median import GeometricMedian
from server.aggregation.mean import UniformMean
from server.plugins.guarded import GuardedAggregation
from server.plugins.packages import AGGREGATIONS, Plugin, plugin
from shared.errors import SettingsError
from shared.protocol.messages import Vector
from shared.study.declaration import Study
from shared.study.sections import Adapter

Arrays = Mapping[str, NDArray[np.float64]]
"""State that a method keeps from round to round, by name; checkpoints hold it, so it outlives a crash."""


class RoundStart(NamedTuple):
    """Public numbers and the method's own state, with which one round's collection begins."""

    number: int
    """Of the round, from 1."""
    length: int
    """Of every update."""
    state: Arrays
    """What the last round that was aggregated left; empty before the first."""
    parts: Sequence[Sequence[slice]] = ()
    """Where the parts of the model that have rates of their own, head and adapter, stand in an update."""


class Aggregation(Protocol):
    """Collects one round's updates."""

    def add(self, update: Vector) -> None:
        """Add one accepted update."""
        ...

    def result(self, current: Vector) -> Vector:
        """Return the next global adapter; called once, when all updates are there."""
        ...

    @property
    def state(self) -> Arrays:
        """Return what the next round's collection begins with; read after `result`."""
        ...


class Method(NamedTuple):
    """A way of combining updates."""

    start: Callable[[RoundStart], Aggregation]
    """Starts one round's collection."""
    adapters: tuple[str, ...]
    """The values of adapter.method that it is meant for."""
    linear: bool = True
    """Whether its result follows from the sum of the updates alone, as a secure sum gives it."""
    changes: str = ""
    """What it changes beside the mean, in words for a plan; empty for the mean itself."""
    of_mean: bool = False
    """Whether it makes more of a secure sum's mean than adding it to the adapter."""
    plugin: Plugin | None = None
    """Where another package brings it."""


ADAPTERS = tuple(get_args(Adapter.model_fields["method"].annotation))


def _mean(start: RoundStart) -> Aggregation:
    return UniformMean(start.length)


def _median(start: RoundStart) -> Aggregation:
    return GeometricMedian(start.length, start.parts)


METHODS = {
    "ffa": Method(_mean, ("ffa-lora", "ia3", "head-only")),
    "fedit": Method(_mean, ("lora", "dora")),
    "geometric-median": Method(
        _median,
        ADAPTERS,
        linear=False,
        changes=(
            "Updates are combined by their geometric median: fewer than half of the sites cannot lead the adapter "
            "where they like, and noise costs as much as with the mean. A round's updates lie on disk until its end."
        ),
    ),
}
"""Methods by their name in federation.aggregation. Nodes take any: it says what is done with what they released."""


def method_for(study: Study) -> Method:
    """Return the method that a study names.

    Raises:
        SettingsError: this server has no method of that name, or it is meant for other adapters.
    """
    name, adapter = study.federation.aggregation, study.adapter.method
    method = METHODS.get(name) or _of_package(plugin(AGGREGATIONS, name, built_in=", ".join(METHODS)))
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
            hint=f"Linear are: {linear}. A plug-in says so itself: needs_only_the_mean = True.",
        )
    return method


def _of_package(offered: Plugin) -> Method:
    """Return the method that a plug-in declares.

    Raises:
        SettingsError: it cannot be loaded, or declares something else.
    """
    declared = offered.load()
    adapters, linear = getattr(declared, "adapters", ADAPTERS), getattr(declared, "needs_only_the_mean", False)
    if not (callable(declared) and isinstance(linear, bool) and isinstance(adapters, tuple)):
        what = "be a class, with adapters as a tuple and needs_only_the_mean as True or False where it has them"
        raise offered.failed(what, f"{declared!r}, {adapters!r}, {linear!r}")

    def start(begin: RoundStart) -> Aggregation:
        return GuardedAggregation(offered, begin.length, begin.state)

    return Method(start, adapters, linear, of_mean=linear, plugin=offered)
