"""Keeps the private evaluations of a run in the run store."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from server.private_evaluation.answers import Answer, histograms
from server.run_store.store import Store
from server.run_store.values import Run
from shared.private_evaluation.choice import Choice, choose, compares
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.messages import NO_POSITION, LedgerPosition

ASKED = "evaluating"
"""Kind of event."""


class RunEvaluations(NamedTuple):
    """What evaluations of a run came to."""

    all: Sequence[Evaluated]
    """Those that are over, in order."""
    choice: Choice | None
    """Among them; None if the study declares none, or there is none yet."""
    of_adapter: Evaluated | None
    """That of the adapter that is handed out, so far; None if no site answered any."""

    def handed_out(self, last: int) -> int:
        """Return how many rounds led to the adapter that is handed out, of a run whose last round this is."""
        return last if self.choice is None else self.choice.handed_out(last)


def evaluations_of(store: Store, run: Run) -> RunEvaluations:
    """Return the evaluations of a run, and the choice among them that its study declares.

    Raises:
        DataError: the study of the run is damaged.
    """
    over = store.evaluations.of_run(run.id)
    evaluated = [Evaluated.model_validate(one) for one in over.values()]
    answered = [one for one in evaluated if one.estimates]
    choice = None
    if over and compares(study := run.study):
        choice = choose(study, {number: histograms(_answers(store, run.id, number)) for number in over})
    of_adapter = answered[-1] if answered else None
    if choice is not None:
        of_adapter = next((one for one in answered if one.number == choice.handed_out(run.round)), of_adapter)
    return RunEvaluations(evaluated, choice, of_adapter)


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
