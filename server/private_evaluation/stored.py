"""Keeps the private evaluations of a run in the run store."""

from collections.abc import Mapping
from typing import Protocol

from server.private_evaluation.answers import Answer
from server.run_store.store import Store
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.messages import NO_POSITION, LedgerPosition

ASKED = "evaluating"
"""Kind of event."""


def _answers(store: Store, run: str, number: int) -> dict[str, Answer]:
    return {site: Answer.from_dict(plain) for site, plain in store.evaluations.counts(run, number).items()}


class Positions(Protocol):
    """The server's copies of the nodes' ledger positions."""

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return the newest position of a node."""
        ...

    def note_position(self, node: int, position: LedgerPosition) -> None:
        """Take note of a position that was written to the store."""
        ...


class StoredEvaluations:
    """Keeps what comes in the run store, where commands and reports find it.

    Args:
        store: open.
        run: its name.
        positions: of the nodes' ledgers.
    """

    def __init__(self, store: Store, run: str, positions: Positions) -> None:
        self._store, self._run, self._positions = store, run, positions
        self._names = dict[int, str]()

    def is_finished(self, number: int) -> bool:
        """Return whether the evaluation after so many rounds is over."""
        return number in self._store.evaluations.of_run(self._run)

    def answers(self, number: int) -> Mapping[str, Answer]:
        """Return the answers that have come to an evaluation, by site."""
        return _answers(self._store, self._run, number)

    def asks(self, number: int, nodes: list[int]) -> None:
        """Write whom an evaluation asks."""
        self._store.record_event(ASKED, {"number": number, "nodes": nodes}, run=self._run)

    def keep(self, number: int, node: int, site: str, answer: Answer) -> None:
        """Write a site's answer and the ledger position that came with it."""
        self._store.evaluations.keep_counts(
            self._run, number, site, answer.as_dict(), node=node, position=answer.ledger
        )
        if answer.ledger != NO_POSITION:
            self._positions.note_position(node, answer.ledger)

    def finish(self, evaluated: Evaluated) -> None:
        """Write the estimates."""
        self._store.evaluations.finish(self._run, evaluated.number, evaluated.model_dump(mode="json"))

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return the position to send with the question."""
        return self._positions.ledger_position(node)

    def site(self, node: int) -> str:
        """Return the name of a node; its number if nobody has heard of it."""
        if node not in self._names:
            self._names = self._store.names()
        return self._names.get(node, str(node))
