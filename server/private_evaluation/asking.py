"""Asks the nodes for an evaluation after the rounds that a study declares, and keeps the estimates."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from server.private_evaluation.answers import Answer, histograms
from server.private_evaluation.collecting import Collection, CountsInOneSum, OwnCounts
from server.private_evaluation.waiting import Waiting
from server.rounds.asking import FIRST_POLL_S, LONGEST_POLL_S, LOOK_EVERY_S
from server.rounds.participants import Members, Participants
from server.rounds.questions import Questions
from server.secure_sum.opening import Opening
from shared.errors import SettingsError
from shared.private_evaluation.cells import Cells
from shared.private_evaluation.choice import Histograms, choose
from shared.private_evaluation.estimates import Evaluated
from shared.protocol.evaluation_records import encode_evaluation, evaluation_for
from shared.protocol.messages import EvaluationTask, LedgerPosition, Status, Vector
from shared.secure_sum.messages import most_masked_bytes
from shared.study.declaration import Study

COUNT_BYTES = 8
OUT_OF_SUM = {status.name.lower(): status for status in (Status.REFUSED_ROSTER, Status.OUT_OF_SECURE_SUM)}
"""Answers of nodes that take no further part in the run's secure sum."""


class Storage(Protocol):
    """Keeps the evaluations of one run, durable."""

    def is_finished(self, number: int) -> bool:
        """Return whether the evaluation after so many rounds is over."""
        ...

    def answers(self, number: int) -> Mapping[str, Answer]:
        """Return the answers that have come to an evaluation, by site."""
        ...

    def asks(self, number: int, nodes: list[int]) -> None:
        """Receive whom an evaluation is about to ask."""
        ...

    def keep(self, number: int, node: int, site: str, answer: Answer) -> None:
        """Make a site's answer durable; a second one of the same site changes nothing."""
        ...

    def finish(self, evaluated: Evaluated) -> None:
        """Make the estimates of an evaluation that is over durable."""
        ...

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return the position to send with the question."""
        ...

    def site(self, node: int) -> str:
        """Return the name of a node."""
        ...


@dataclass(frozen=True)
class PrivateEvaluations:
    """The private evaluations of one study run.

    Guarantee: a site's answer is durable before anything else happens, and a run that was cut off asks no site for
    other counts.
    Guarantee: a run ends early by evaluations that are durable alone, so also if it is cut off before it ends.

    Args:
        grid: Flower's.
        study: as declared, with an evaluation.
        study_run: names the run.
        grace_s: how long it waits for the others once the quorum has answered.
        storage: keeps what came.
        within: cuts an adapter back to where nodes accept it, given the number of the round that would send it.
        opening: of the run's secure sums, if it has any: then only the sum of the sites' counts is opened.
    """

    grid: Grid
    study: Study
    study_run: str
    grace_s: float
    storage: Storage
    within: Callable[[int, Vector], Vector] = lambda _number, adapter: adapter
    opening: Opening | None = None

    def after(self, participants: Participants, number: int, adapter: Vector) -> bool:
        """Ask participants for the evaluation that is due after so many rounds, if there is one that is not over.

        Returns:
            Whether the study declares that the run ends here, by what was evaluated so far.
        """
        if number not in self.study.evaluated_after:
            return False
        if not self.storage.is_finished(number):
            sent = self.within(number + 1, adapter)
            task = EvaluationTask(self.study.sha256, self.study_run, number, sent)
            self.storage.finish(self._evaluated(participants, self._collection(task)))
        choice = choose(self.study, self._released(number))
        return choice is not None and choice.ends_after(number)

    def _evaluated(self, participants: Participants, collected: Collection) -> Evaluated:
        number = collected.task.number
        evaluated = collected.resumed(self.storage.answers(number))
        if evaluated is not None:
            return evaluated
        late = list[str]()
        with suppress(SettingsError):  # too few are left for a sum: the next round says so, what is trained stays
            late = self._ask(participants, collected)
        return collected.evaluated(self.storage.answers(number), late)

    def _released(self, latest: int) -> dict[int, Histograms]:
        """Return the counts of the evaluations that are over, up to one: the decision is made of these alone."""
        over = [n for n in self.study.evaluated_after if n <= latest and self.storage.is_finished(n)]
        return {number: histograms(self.storage.answers(number)) for number in over}

    def _collection(self, task: EvaluationTask) -> Collection:
        if self.opening is None:
            return OwnCounts(self.study, task)
        return CountsInOneSum(self.study, task, self.opening)

    def _ask(self, participants: Participants, collected: Collection) -> list[str]:
        """Ask until it is over; returns the sites that did not answer."""
        federation, task = self.study.federation, collected.task
        waiting = Waiting(collected.quorum, federation.deadline_s, self.grace_s, time.monotonic())
        before, content = self.storage.answers(task.number), encode_evaluation(task)
        settled = collected.needed_no_more(before)

        def message(node: int) -> Message:
            group, life = f"{task.study_run}/evaluation-{task.number}", 2 * federation.deadline_s
            addressed = evaluation_for(content, self.storage.ledger_position(node))
            return Message(addressed, node, "query", group_id=group, ttl=life)

        questions, members, looked_at, pause = Questions(self.grid, message), Members([], [], []), -1e9, FIRST_POLL_S
        while True:
            arrived, now = self._take(questions, waiting, collected, participants), time.monotonic()
            if now - looked_at >= LOOK_EVERY_S:
                members, looked_at = participants.look(), now
                for node in [*members.present, *members.away]:
                    if node not in waiting.answered and self.storage.site(node) in settled:
                        waiting.note_answer(node, now, counted=before[self.storage.site(node)].counted)
            if due := waiting.due(members.present, now):
                self.storage.asks(task.number, due)
                waiting.note_asked(due)
                for node in questions.ask(due):
                    waiting.note_gone(node, now)
            if waiting.is_over([*members.away, *members.undecided], now):
                return sorted({self.storage.site(node) for node in {*waiting.late, *members.away} - waiting.answered})
            pause = FIRST_POLL_S if arrived else min(2 * pause, LONGEST_POLL_S)
            if not arrived:
                time.sleep(pause)

    def _take(self, questions: Questions, waiting: Waiting, collected: Collection, participants: Participants) -> bool:
        arrived = False
        for node, reply in questions.replies():
            arrived, site, now = True, self.storage.site(node), time.monotonic()
            if not waiting.admits(node):
                continue
            answer = collected.inspect(site, reply)
            if answer is None:
                if not questions.under_way(node):
                    waiting.note_gone(node, now)
            else:
                questions.close(node)
                self.storage.keep(collected.task.number, node, site, answer)
                waiting.note_answer(node, now, counted=answer.counted)
                if answer.status in OUT_OF_SUM:
                    participants.note_refusal(node, OUT_OF_SUM[answer.status])
        return arrived


def histogram_bytes(study: Study) -> int:
    """Return the most bytes that one node's counts come in; 0 for a study without a private evaluation."""
    if study.evaluation is None:
        return 0
    cells = Cells.of(study).length
    return COUNT_BYTES * cells if study.federation.secure_sum is None else most_masked_bytes(cells)
