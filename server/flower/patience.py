"""Calls to Flower that wait while its server is away, and fail in words of ours.

Flower's own repeater interrupts this process when it is answered 401, and raises whatever else comes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx

from shared.errors import FedVaultError, RunError

Result = TypeVar("Result")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
FAULT = 500


class FlowerAwayError(RunError):
    """Flower's server is away; it may be back."""


class FlowerFaultError(FlowerAwayError):
    """Flower's server is there, and fails at what it was asked for as long as it was asked."""


class FlowerRefusedError(RunError):
    """Flower's server refuses a call, or answers with what is no answer: another try helps seldom."""


class Patience:
    """Repeats a call while Flower's server is away, in the place of Flower's own repeater.

    Args:
        longest_s: how long one call may be repeated.
        clock: seconds.
        wait: waits so many seconds.
    """

    def __init__(
        self,
        longest_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.longest_s, self._clock, self._wait = longest_s, clock, wait

    def invoke(self, call: Callable[[], Result]) -> Result:
        """Return what the call returns.

        Raises:
            FlowerAwayError: it was away for too long.
            FlowerFaultError: it has failed at the call for too long.
            FlowerRefusedError: it does not accept the call.
        """
        give_up, pause = self._clock() + self.longest_s, FIRST_PAUSE_S
        while True:
            try:
                return call()
            except httpx.HTTPStatusError as error:
                trouble, status = str(error.response.status_code), error.response.status_code
                if status < FAULT:
                    raise FlowerRefusedError(f"Expected Flower to accept a call of this run, got {trouble}.") from None
            except httpx.TransportError as error:
                trouble, status = type(error).__name__, 0
            left = give_up - self._clock()
            if left <= 0:
                away = FlowerFaultError if status == FAULT else FlowerAwayError
                raise away(f"Expected Flower's SuperLink to answer, got {trouble}.") from None
            self._wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    @contextmanager
    def none(self) -> Iterator[None]:
        """Repeat nothing in this block: whoever asks will ask again by itself."""
        before, self.longest_s = self.longest_s, 0.0
        try:
            yield
        finally:
            self.longest_s = before


@contextmanager
def flower_failures(what: str) -> Iterator[None]:
    """Turn whatever Flower raises into an error that names what it was asked for.

    Guarantee: an error of Flower's never ends the process of a run with a traceback.

    Raises:
        FlowerRefusedError: Flower failed, for another reason than that it is away.
    """
    try:
        yield
    except FedVaultError:
        raise
    except Exception as error:
        raise FlowerRefusedError(f"Expected Flower to {what}, got {type(error).__name__}: {error}") from error
