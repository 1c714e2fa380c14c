"""Drives one round over a Flower Grid, from its first question until it is aggregated or lost."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from server.rounds.checkpoints import Checkpoints
from server.rounds.cohort import in_order
from server.rounds.observer import Observer
from server.rounds.participants import Participants
from server.rounds.questions import Questions
from server.rounds.replies import Replies
from server.rounds.round import Decision, Outcome, Round
from server.rounds.update_filter import Accepted, Declined, Unanswered
from shared.protocol.flower_records import encode_task, with_server_copy
from shared.protocol.messages import NO_POSITION, LedgerPosition, TrainTask

log = logging.getLogger(__name__)
QUIET = (
    "Round %d: the update of node %d is quieter than the noise that it declares. Its records are not protected as "
    "promised: ask its operator to stop it and to check its installation."
)
FIRST_POLL_S, LONGEST_POLL_S = 0.01, 0.2
LOOK_EVERY_S = 1.0
"""How often a round that is short of somebody looks who is present."""


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


class Asking:
    """Asks one round's nodes, folds their updates in as they come, and asks again as the round decides.

    Guarantee: whom a round asks is durable before the message leaves.

    Args:
        grid: Flower's.
        current: the round, before its first question.
        task: the same for every node and every time it is asked, but for the ledger position.
        replies: judges them, and collects what they bring.
        participants: may be asked.
        checkpoints: keep whom the round asked.
        ledger_copies: kept by node.
        last_in_line: asked only if the round is short of others.
        observer: receives progress, if there is one.
    """

    def __init__(
        self,
        grid: Grid,
        current: Round,
        task: TrainTask,
        *,
        replies: Replies,
        participants: Participants,
        checkpoints: Checkpoints,
        ledger_copies: LedgerCopies,
        last_in_line: Collection[int] = (),
        observer: Observer | None = None,
    ) -> None:
        self._round, self._task, self._replies = current, task, replies
        self._participants, self._checkpoints = participants, checkpoints
        self._ledger_copies, self._last_in_line, self._observer = ledger_copies, last_in_line, observer
        self._questions = Questions(grid, self._message)
        # one encoding for all nodes of a version: the adapter is kept once
        self._content = cache(lambda version: encode_task(replace(task, version=version)))
        self._looked_at, self._present, self._away = float("-inf"), list[int](), list[int]()
        self.bytes_up = 0
        """Payload of one accepted reply; 0 if none came."""

    def run(self, nodes: Collection[int], *, asked_before: Collection[int] = (), missed: int = 0) -> Outcome:
        """Ask these nodes first, then whomever the round decides, until it is over."""
        current, pause = self._round, FIRST_POLL_S
        current.begin(nodes, time.monotonic(), asked_before=asked_before, missed=missed)
        self._send(sorted(nodes), again=sorted(set(nodes) & set(asked_before)))
        while True:
            arrived = self._take_replies()
            decision = None if current.only_waits(time.monotonic()) else self._decide()
            if decision is not None and decision.act in ("aggregate", "lose"):
                return "aggregated" if decision.act == "aggregate" else "lost"
            if decision is not None and decision.act != "wait":
                again = [node for node in decision.nodes if node in current.times]
                current.ask(decision.nodes, time.monotonic(), again=decision.act == "ask again")
                self._send(decision.nodes, again=again)
            pause = FIRST_POLL_S if arrived else min(2 * pause, LONGEST_POLL_S)
            if not arrived:
                time.sleep(pause)

    def _decide(self) -> Decision:
        now, task = time.monotonic(), self._task
        if now - self._looked_at >= LOOK_EVERY_S:
            members = self._participants.look()
            self._looked_at, self._away = now, members.away
            self._present = in_order(
                members.present, study_run=task.study_run, number=task.round, last_in_line=self._last_in_line
            )
        self._participants.note_stall(stalled=self._round.is_stalled(now, self._present))
        return self._round.decide(now, self._present, self._away)

    def _send(self, nodes: Sequence[int], *, again: Sequence[int]) -> None:
        current = self._round
        self._checkpoints.keep_asked(current.number, current.times, missed=current.asks - 1)
        if self._observer is not None:
            self._observer.asks(current.number, nodes, again=again, ask=current.asks)
        for node in self._questions.ask(nodes):
            self._note_gone(node)

    def _message(self, node: int) -> Message:
        content, server_copy = (
            self._content(self._participants.version(node)),
            self._ledger_copies.ledger_position(node),
        )
        if server_copy != NO_POSITION:
            content = with_server_copy(content, server_copy)
        group = f"{self._task.study_run}/{self._task.round}"
        return Message(content, node, "train", group_id=group, ttl=2 * self._round.deadline_s)

    def _take_replies(self) -> bool:
        arrived = False
        for node, reply in self._questions.replies():
            arrived = True
            self._take(node, reply)
        return arrived

    def _take(self, node: int, reply: Message) -> None:
        current, verdict = self._round, self._replies.inspect(node, reply)
        if isinstance(verdict, Unanswered):
            if not self._questions.under_way(node):
                self._note_gone(node)
            return
        if not current.admits(node):
            return
        self._questions.close(node)
        outcome = "accepted"
        if isinstance(verdict, Accepted):
            self.bytes_up = max(self.bytes_up, self._replies.add(node, verdict))
            current.accept(node, time.monotonic(), quiet=verdict.quiet)
            if verdict.quiet:
                log.warning(QUIET, current.number, node)
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
            self._observer.answered(current.number, current.answered, len(current.times), node=node, verdict=outcome)

    def _note_gone(self, node: int) -> None:
        self._round.note_gone(node, time.monotonic())
        if self._observer is not None and node in self._round.gone:
            self._observer.gone(self._round.number, node)
