"""Runs an aggregation of another package: whatever it does, an adapter that may be sent comes of it, or one error.

| the plug-in | what follows |
|---|---|
| raises, or asks Python to exit | the run has failed, and says which plug-in did |
| returns another shape or type, or a number that is not finite | the same |
| takes longer than its time, in any call | the same; its thread ends with the process |
| returns values beyond what honest updates lead to | the coordinator cuts them back to where nodes accept them |
| changes what it is given, or what it returned | it changed a copy |
| keeps more state, or other state, than numbers by name | the run has failed |

A failed run keeps its last checkpoint as it was. None of this protects a node, which trusts no server: its own checks
do.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from server.plugins.packages import Plugin
from shared.errors import SettingsError
from shared.protocol.messages import Vector

log = logging.getLogger(__name__)
LONGEST_CALL_S = 600.0
MOST_ARRAYS, STATE_NAME = 16, re.compile(r"[a-z][a-z0-9_]{0,39}")
Arrays = Mapping[str, NDArray[np.float64]]
T = TypeVar("T")
Number = TypeVar("Number", np.float32, np.float64)


class GuardedAggregation:
    """One round of a plug-in's aggregation.

    Guarantee: an aggregation of another package gives a finite adapter of the same length, or the run has failed with
    one sentence that names it.

    Args:
        plugin: as it was found.
        length: of the packed adapter.
        state: what it left of the rounds before, by name.
        longest_call_s: seconds that it may take for one call.

    Raises:
        SettingsError: it cannot be loaded, or does not begin.
    """

    def __init__(
        self,
        plugin: Plugin,
        length: int,
        state: Arrays,
        *,
        longest_call_s: float = LONGEST_CALL_S,
    ) -> None:
        self._plugin, self._length, self._longest_call_s = plugin, length, longest_call_s
        self._state: Arrays = {}
        copies = {name: array.copy() for name, array in state.items()}
        self._aggregation = self._guarded("begin a round", lambda: plugin.load()(length, copies))

    def add(self, update: Vector) -> None:
        """Hand over a copy of one accepted update."""
        copy = update.copy()
        self._guarded("take an update", lambda: self._aggregation.add(copy))

    def result(self, current: Vector) -> Vector:
        """Return the next global adapter; what the plug-in keeps for later rounds is `state` from then on."""
        copy = current.copy()
        adapter, self._state = self._guarded("return an adapter", lambda: self._result(copy))
        return adapter

    @property
    def state(self) -> Arrays:
        """Return what the next round begins with."""
        return self._state

    def _result(self, current: Vector) -> tuple[Vector, Arrays]:
        adapter = _numbers("an adapter", self._aggregation.result(current), np.float32)
        if adapter.shape != (self._length,):
            raise ValueError(f"an adapter has {self._length} numbers in one row, not the shape {adapter.shape}")
        state_of = getattr(self._aggregation, "state", None)
        state = {} if state_of is None else dict(state_of())
        if len(state) > MOST_ARRAYS or not all(isinstance(n, str) and STATE_NAME.fullmatch(n) for n in state):
            raise ValueError(f"its state is no more than {MOST_ARRAYS} arrays, each by a plain name")
        arrays = {name: _numbers(f"state[{name!r}]", array, np.float64) for name, array in state.items()}
        if any(array.size > self._length for array in arrays.values()):
            raise ValueError(f"an array of its state has more numbers than the adapter's {self._length}")
        return adapter, arrays

    def _guarded(self, what: str, call: Callable[[], T]) -> T:
        """Return what a call does within its time.

        Raises:
            SettingsError: it raised or took longer.
        """
        outcome, failure = list[T](), list[BaseException]()

        def run() -> None:
            try:
                outcome.append(call())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run, name=f"plug-in {self._plugin.entry.name}", daemon=True)
        thread.start()
        thread.join(self._longest_call_s)
        if failure:
            if isinstance(failure[0], SettingsError):
                raise failure[0]
            log.info("A plug-in failed.", exc_info=failure[0])
            raise self._plugin.failed(what, failure[0])
        if not outcome:
            raise self._plugin.failed(f"{what} within {self._longest_call_s:g} seconds", "nothing yet")
        return outcome[0]


def _numbers(name: str, given: object, kind: type[Number]) -> NDArray[Number]:
    """Return a copy of an array as finite numbers of one kind.

    Raises:
        TypeError: it is none of floating-point numbers.
        ValueError: one of them is not finite.
    """
    if not isinstance(given, np.ndarray) or given.dtype not in (np.float16, np.float32, np.float64):
        came = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise TypeError(f"{name} is an array of floating-point numbers, not {came}")
    with np.errstate(over="ignore"):
        copy: NDArray[Number] = np.array(given, dtype=kind, subok=False)
    if not np.isfinite(copy).all():
        raise ValueError(f"{name} is finite, not {copy[~np.isfinite(copy)][0]}")
    return copy
