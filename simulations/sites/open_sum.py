"""Rounds of a secure sum without its masks: they cancel exactly, so a simulation adds up the summands themselves.

All else is the server's own: how many nodes make a round, the step from the opened sum, and which sums are lost.
"""

from dataclasses import replace

from server.aggregation.opened_sum import OpenedSum
from server.rounds.replies import PlainReplies, Replies
from server.rounds.round import RoundRecord
from server.secure_sum.step import Step, SumRefused
from shared.errors import RunError
from shared.protocol.messages import TrainTask, Vector


class OpenReplies(PlainReplies):
    """Takes summands that anybody could read: NOT private where the noise is shared, and for simulations alone."""

    def __init__(self, task: TrainTask) -> None:
        self.opened = OpenedSum(len(task.adapter))
        super().__init__(task, self.opened, float("inf"))


class OpenRounds:
    """The rounds of a simulated secure sum.

    A round of fewer nodes than the threshold is lost, as the federation's own is.

    Args:
        step: makes the next adapter of an opened sum.
        quorum: fewest nodes that make a round: the threshold, which is at least the study's quorum.
    """

    def __init__(self, step: Step, quorum: int) -> None:
        self._step, self.quorum = step, quorum

    def task(self, task: TrainTask) -> TrainTask:
        """Return the task: nobody asks who else takes part."""
        return task

    def resumed(self, task: TrainTask) -> None:
        """Return nothing: no set of survivors is fixed without masks."""

    def replies(self, task: TrainTask) -> Replies:
        """Start the collection of one round's summands."""
        return OpenReplies(task)

    def close(self, task: TrainTask, replies: Replies, record: RoundRecord) -> tuple[Vector, RoundRecord]:
        """Step on the sum of a round that has its quorum; returns the same adapter if the sum is refused."""
        if not isinstance(replies, OpenReplies):
            raise RunError("Expected the replies of a simulated secure sum.")
        opened = replies.opened
        try:
            return self._step(task.round, opened.total, opened.nodes, task.adapter), record
        except SumRefused:
            return task.adapter, replace(record, outcome="lost")
