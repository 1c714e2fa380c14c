"""Drives the rounds of one study run over a Flower Grid."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.aggregation.method import Aggregation
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.cohort import draw_cohort
from server.rounds.observer import Observer
from server.rounds.participants import AllPresent, Participants
from server.rounds.round import Round, RoundRecord
from server.rounds.update_filter import Accepted, Declined, inspect
from shared.protocol.flower_records import encode_task, with_server_copy
from shared.protocol.messages import NO_POSITION, LedgerPosition, TrainTask, Vector
from shared.protocol.update_encoding import Wire, packed_bytes

FIRST_POLL_S = 0.01
LONGEST_POLL_S = 0.2
Evaluate = Callable[[int, Vector], dict[str, Any]]


class LedgerCopies(Protocol):
    """Keeps the server's copy of each node's ledger position."""

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return the position to send with the node's next task."""
        ...

    def save_ledger_position(self, node: int, position: LedgerPosition) -> None:
        """Keep the position that a reply came with."""
        ...


class NoLedgerCopies:
    """Keeps nothing: simulated sites have no ledger."""

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return no position."""
        del node
        return NO_POSITION

    def save_ledger_position(self, node: int, position: LedgerPosition) -> None:
        """Keep nothing."""


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


class Coordinator:
    """Runs round after round: asks, folds replies in as they come, aggregates, writes a checkpoint, evaluates.

    Guarantee: a checkpoint is durable before the next round's first message leaves.
    Guarantee: replies are folded as they come and dropped, so memory does not grow with the number of nodes.
    Guarantee: a run that was cut off asks those of a round's cohort again whom it had asked, before anybody else.

    Args:
        grid: Flower's Grid, real or simulated.
        terms: of the study run.
        initial: the adapter before round 1.
        largest_norm: bound on an honest update's norm, by round number.
        aggregation: starts one round's collection for vectors of a length.
        checkpoints: where state is kept, and resumed from.
        evaluate: on data the server's operator owns, if any.
        observer: receives progress.
        participants: decides who may be asked; default: everyone present.
        ledger_copies: keeps the ledger positions that nodes report; default: none.
        within: cuts an adapter, before a round sends it, back to where nodes accept it; default: leaves it.
    """

    def __init__(
        self,
        grid: Grid,
        terms: RunTerms,
        *,
        initial: Vector,
        largest_norm: Callable[[int], float],
        aggregation: Callable[[int], Aggregation],
        checkpoints: Checkpoints,
        evaluate: Evaluate | None = None,
        observer: Observer | None = None,
        participants: Participants | None = None,
        ledger_copies: LedgerCopies | None = None,
        within: Callable[[int, Vector], Vector] = lambda _number, adapter: adapter,
    ) -> None:
        self.grid, self.terms = grid, terms
        self._participants = participants or AllPresent(grid, quorum=terms.quorum, patience_s=terms.deadline_s)
        self._ledger_copies = ledger_copies or NoLedgerCopies()
        self._initial, self._largest_norm, self._aggregation = initial, largest_norm, aggregation
        self._checkpoints, self._evaluate, self._observer = checkpoints, evaluate, observer
        self._within = within

    def run(self) -> State:
        """Run every round that is not finished yet; returns the final state."""
        state = self._resumed()
        for number in range(state.round + 1, self.terms.rounds + 1):
            adapter, record = self._round(number, self._within(number, state.adapter))
            state = self._close(state, number, adapter, record)
        return state

    def _resumed(self) -> State:
        terms = self.terms
        latest = self._checkpoints.latest(study_sha256=terms.study_sha256, study_run=terms.study_run)
        if latest is not None:
            return latest
        start = State(terms.study_sha256, terms.study_run, 0, self._initial)
        return self._close(start, 0, self._initial, None)

    def _close(self, state: State, number: int, adapter: Vector, record: RoundRecord | None) -> State:
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
        closed = State(state.study_sha256, state.study_run, number, adapter, records, evaluations)
        self._checkpoints.save(closed)
        if self._observer is not None:
            self._observer.finished(record, evaluation)
        return closed

    def _round(self, number: int, adapter: Vector) -> tuple[Vector, RoundRecord]:
        task = TrainTask(self.terms.study_sha256, self.terms.study_run, number, adapter, wire=self.terms.wire)
        nodes = self._choose_nodes(number)
        started = time.monotonic()
        current = Round(number, frozenset(nodes), self.terms.quorum, started + self.terms.deadline_s)
        collected = self._aggregation(len(adapter))
        versions = {node: self._participants.version(node) for node in nodes}
        # one encoding for all nodes of a version: the adapter is kept once
        contents = {version: encode_task(replace(task, version=version)) for version in set(versions.values())}
        messages = [self._message(task, contents[versions[node]], node) for node in nodes]
        if self._observer is not None:
            self._observer.asks(number, nodes)
        bytes_up = 0
        for node, reply in self._replies(messages, current):
            bytes_up = max(bytes_up, self._take_in(current, collected, task, node, reply))
        trained = time.monotonic()
        result = collected.result(adapter) if current.reached_quorum else adapter
        seconds = {"train": trained - started, "aggregate": time.monotonic() - trained}
        record = current.record(bytes_up=bytes_up, bytes_down=packed_bytes(len(adapter), "float32"), seconds=seconds)
        return result, record

    def _choose_nodes(self, number: int) -> list[int]:
        members, terms = self._participants.members(), self.terms
        if terms.cohort is None:
            return members
        before = self._checkpoints.asked(number)
        nodes = draw_cohort(
            members, cohort=terms.cohort, study_run=terms.study_run, number=number, asked_before=frozenset(before)
        )
        self._checkpoints.keep_asked(number, {*before, *nodes})
        return nodes

    def _message(self, task: TrainTask, content: RecordDict, node: int) -> Message:
        server_copy = self._ledger_copies.ledger_position(node)
        if server_copy != NO_POSITION:
            content = with_server_copy(content, server_copy)
        return Message(content, node, "train", group_id=f"{task.study_run}/{task.round}", ttl=2 * self.terms.deadline_s)

    def _take_in(self, current: Round, collected: Aggregation, task: TrainTask, node: int, reply: Message) -> int:
        if not current.admits(node):
            return 0
        verdict = inspect(reply, task, largest_norm=self._largest_norm(task.round))
        size, outcome = 0, "accepted"
        if isinstance(verdict, Accepted):
            collected.add(verdict.update)
            current.accept(node)
            size = packed_bytes(len(verdict.update), task.wire)
        elif isinstance(verdict, Declined):
            outcome = verdict.status.name.lower()
            current.refuse(node, outcome)
            self._participants.note_refusal(node, verdict.status)
        else:
            outcome = str(verdict.reason)
            current.reject(node, outcome)
        if verdict.ledger != NO_POSITION:
            self._ledger_copies.save_ledger_position(node, verdict.ledger)
        if self._observer is not None:
            answered = len(current.accepted) + len(current.refused) + len(current.rejected)
            self._observer.answered(task.round, answered, len(current.asked), node=node, verdict=outcome)
        return size

    def _replies(self, messages: list[Message], current: Round) -> Iterable[tuple[int, Message]]:
        # an error reply may come from the server's own address, so a reply is matched to the question, not the sender
        questions = {
            message_id: message.metadata.dst_node_id
            for message_id, message in zip(self.grid.push_messages(messages), messages, strict=True)
            if message_id
        }
        pause = FIRST_POLL_S
        while questions and not current.closed(time.monotonic()):
            arrived = False
            for reply in self.grid.pull_messages(list(questions)):
                arrived = True
                node = questions.pop(reply.metadata.reply_to_message_id, None)
                yield (reply.metadata.src_node_id if node is None else node), reply
            pause = FIRST_POLL_S if arrived else min(2 * pause, LONGEST_POLL_S)
            if not arrived:
                time.sleep(pause)
