"""Faults of what a process that must not end does beside its work: logged once for each change, never fatal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Faults:
    """Keeps what fails at the moment, so that a fault is logged when it begins, changes or ends, and not in between."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    @contextmanager
    def tolerated(self, what: str, meanwhile: str) -> Iterator[None]:
        """Log a failure of the block and continue.

        Args:
            what: the block does, as the subject of a sentence.
            meanwhile: a sentence on what holds until it succeeds.
        """
        try:
            yield
        except Exception as error:  # whatever it is, what is watched matters more
            self.note(what, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", meanwhile)
        else:
            if self._known.pop(what, None) is not None:
                log.info("%s succeeds again.", what)

    def note(self, what: str, fault: str, meanwhile: str) -> None:
        """Log a fault, unless it is the one that was logged last."""
        if self._known.get(what) != fault:
            log.error("%s failed: %s. %s", what, fault, meanwhile)
        self._known[what] = fault
