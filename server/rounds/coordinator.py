"""Drives the rounds of one study run over a Flower Grid."""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid

from server.aggregation.method import Aggregation, Arrays, RoundStart
from server.rounds.asking import Asking, LedgerCopies, NoLedgerCopies
from server.rounds.attendance import last_in_line
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.cohort import draw_cohort
from server.rounds.observer import Observer
from server.rounds.participants import AllPresent, Participants
from server.rounds.replies import PlainReplies, SecureSum
from server.rounds.round import Round, RoundRecord
from server.rounds.update_bounds import NoiseFloor
from shared.protocol.messages import TrainTask, Vector
from shared.protocol.update_encoding import Wire, packed_bytes

Evaluate = Callable[[int, Vector], dict[str, Any]]
Floors = Callable[[int, int], NoiseFloor]
"""Floor of a site's updates, given the round and its declared size."""
EvaluatePrivately = Callable[[Participants, int, Vector], bool]


def no_private_evaluation(_participants: Participants, _number: int, _adapter: Vector) -> bool:
    """Leave an adapter as the study without a private evaluation does."""
    return False


@dataclass(frozen=True)
class RunTerms:
    """The coordinator's terms, taken from the study; all public."""

    study_sha256: str
    study_run: str
    rounds: int
    quorum: int
    deadline_s: float
    wire: Wire = "float32"
    """Encoding of the updates."""
    cohort: int | None = None
    """How many nodes are asked in a round; None asks everyone present."""
    grace_s: float = math.inf
    """How long a round that has its quorum waits for the others; the server's own, not the study's."""


class Coordinator:
    """Runs round after round: asks, folds replies in as they come, aggregates, writes a checkpoint, evaluates.

    Guarantee: a checkpoint is durable before the next round's first message leaves.
    Guarantee: replies are folded as they come and dropped, so memory does not grow with the number of nodes.
    Guarantee: a run that was cut off asks those of a round's cohort again whom it had asked, before anybody else.
    Guarantee: a round that misses its quorum is asked again while it could make it, before its updates are given up.
    Guarantee: a private evaluation is over before the next round begins, also if the server was cut off before it.

    Args:
        grid: Flower's Grid, real or simulated.
        terms: of the study run.
        initial: the adapter before round 1.
        largest_norm: bound on an honest update's norm, by round number.
        aggregation: starts a round's collection.
        floors: of what noise makes of updates; default: none is known.
        checkpoints: where state is kept, and resumed from.
        evaluate: on data the server's operator owns, if any.
        observer: receives progress.
        participants: decides who may be asked; default: everyone present.
        ledger_copies: keeps the ledger positions that nodes report; default: none.
        within: cuts an adapter that a round made, or sends, back to where nodes accept it; default: leaves it.
        secure_sum: of the run, if its updates are masked; its mean takes the place of the updates.
        of_mean: whether the aggregation makes more of that mean than adding it to the adapter.
        evaluate_privately: has participants evaluate an adapter, given how many rounds led to it; what is over
            already, or not declared, it leaves. Returns whether the run ends here.
    """

    def __init__(
        self,
        grid: Grid,
        terms: RunTerms,
        *,
        initial: Vector,
        largest_norm: Callable[[int], float],
        aggregation: Callable[[RoundStart], Aggregation],
        floors: Floors | None = None,
        checkpoints: Checkpoints,
        evaluate: Evaluate | None = None,
        observer: Observer | None = None,
        participants: Participants | None = None,
        ledger_copies: LedgerCopies | None = None,
        within: Callable[[int, Vector], Vector] = lambda _number, adapter: adapter,
        secure_sum: SecureSum | None = None,
        of_mean: bool = False,
        evaluate_privately: EvaluatePrivately = no_private_evaluation,
    ) -> None:
        self.grid, self.terms = grid, terms
        self._participants = participants or AllPresent(grid, quorum=terms.quorum, patience_s=terms.deadline_s)
        self._ledger_copies = ledger_copies or NoLedgerCopies()
        self._initial, self._largest_norm, self._aggregation = initial, largest_norm, aggregation
        self._checkpoints, self._evaluate, self._observer = checkpoints, evaluate, observer
        self._within, self._secure_sum, self._of_mean = within, secure_sum, of_mean
        self._evaluate_privately = evaluate_privately
        self._floors = floors

    def run(self) -> State:
        """Run every round that is not finished yet, or up to where the study ends it; returns the final state."""
        state = self._resumed()
        over = self._evaluate_privately(self._participants, state.round, state.adapter)
        for number in range(state.round + 1, self.terms.rounds + 1):
            if over:
                break
            late = last_in_line(state.records, number)
            made, method_state, record = self._round(
                number, self._within(number, state.adapter), late, state.method_state
            )
            state = self._close(state, number, self._within(number + 1, made), record, method_state)
            over = self._evaluate_privately(self._participants, number, state.adapter)
            for node in last_in_line(state.records, number + 1) & set(record.missing):
                self._participants.note_silence(node)
        return state

    def _resumed(self) -> State:
        terms = self.terms
        latest = self._checkpoints.latest(study_sha256=terms.study_sha256, study_run=terms.study_run)
        if latest is not None:
            return latest
        start = State(terms.study_sha256, terms.study_run, 0, self._initial)
        return self._close(start, 0, self._initial, None)

    def _close(
        self, state: State, number: int, adapter: Vector, record: RoundRecord | None, method_state: Arrays | None = None
    ) -> State:
        evaluations, records = dict(state.evaluations), list(state.records)
        evaluation = None
        if self._evaluate is not None:
            started = time.monotonic()
            evaluation = self._evaluate(number, adapter)
            evaluations[str(number)] = evaluation
            if record is not None:
                record.seconds["evaluate"] = time.monotonic() - started
        if record is not None:
            records.append(record.as_dict())
        closed = State(state.study_sha256, state.study_run, number, adapter, records, evaluations, method_state or {})
        self._checkpoints.save(closed)
        if self._observer is not None:
            self._observer.finished(record, evaluation)
        return closed

    def _round(
        self, number: int, adapter: Vector, late: Collection[int], method_state: Arrays
    ) -> tuple[Vector, Arrays, RoundRecord]:
        task = TrainTask(self.terms.study_sha256, self.terms.study_run, number, adapter, wire=self.terms.wire)
        secure, quorum = self._secure_sum, self.terms.quorum
        if secure is not None and (finished := secure.resumed(task)) is not None:
            return self._of_sum(number, adapter, method_state, *finished)
        members, before = self._participants.members(), self._checkpoints.asked(number)
        if secure is not None:
            task, quorum = secure.task(task), secure.quorum
        nodes = draw_cohort(
            members,
            cohort=self.terms.cohort,
            study_run=self.terms.study_run,
            number=number,
            asked_before=frozenset(before.nodes),
            last_in_line=late,
            quorum=quorum,
        )
        started = time.monotonic()
        current = Round(number, quorum, self.terms.deadline_s, self.terms.grace_s)
        collected = self._aggregation(RoundStart(number, len(adapter), method_state))
        replies = secure.replies(task) if secure else self._plain_replies(task, collected)
        asking = Asking(
            self.grid,
            current,
            task,
            replies=replies,
            participants=self._participants,
            checkpoints=self._checkpoints,
            ledger_copies=self._ledger_copies,
            last_in_line=late,
            observer=self._observer,
        )
        outcome = asking.run(nodes, asked_before=before.nodes, missed=before.missed)
        trained = time.monotonic()
        result = adapter
        if outcome == "aggregated" and secure is None:
            result, method_state = collected.result(adapter), collected.state
        seconds = {"train": trained - started, "aggregate": time.monotonic() - trained}
        bytes_down = packed_bytes(len(adapter), "float32")
        record = current.record(outcome, bytes_up=asking.bytes_up, bytes_down=bytes_down, seconds=seconds)
        if secure is not None and outcome == "aggregated":
            return self._of_sum(number, adapter, method_state, *secure.close(task, replies, record))
        return result, method_state, record

    def _of_sum(
        self, number: int, adapter: Vector, method_state: Arrays, summed: Vector, record: RoundRecord
    ) -> tuple[Vector, Arrays, RoundRecord]:
        """Return what the aggregation makes of a secure sum, whose mean was added to the adapter."""
        if not self._of_mean or record.outcome != "aggregated":
            return summed, method_state, record
        collected = self._aggregation(RoundStart(number, len(adapter), method_state))
        collected.add(summed - adapter)
        return collected.result(adapter), collected.state, record

    def _plain_replies(self, task: TrainTask, collected: Aggregation) -> PlainReplies:
        def floor(node: int) -> NoiseFloor | None:
            size = self._participants.declared_size(node)
            return self._floors(task.round, size) if self._floors is not None and size is not None else None

        return PlainReplies(task, collected, self._largest_norm(task.round), floor=floor)
