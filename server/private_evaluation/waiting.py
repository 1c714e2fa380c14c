"""Decide whom an evaluation asks, and when it has waited long enough: rules without IO.

Rules
1. All members present are asked, and whoever comes while it lasts. One question each: whose connection broke is asked
   again, and sends the same counts once more at no cost.
2. The first answer of a node counts, be it its counts or a code.
3. It is over when nobody is waited for and nobody may still come; or, once the study's quorum has sent its counts, when
   the grace of a round is over; or at the deadline of a round. Who is silent then is late, and the run goes on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from server.rounds.round import COMES_BACK_S, LONGEST_PAUSE_S, SHORTEST_PAUSE_S, closing_time


@dataclass
class Waiting:
    """An evaluation in progress; the caller brings events, the members and the time.

    Guarantee: an evaluation lasts at most one deadline of a round, and nobody's silence ends a run.
    """

    quorum: int
    deadline_s: float
    grace_s: float
    began: float
    """On the caller's clock."""
    answered: set[int] = field(default_factory=set)
    _times: dict[int, int] = field(default_factory=dict)
    _gone: dict[int, float] = field(default_factory=dict)
    _counted: set[int] = field(default_factory=set)
    _deadline: float = 0.0

    def __post_init__(self) -> None:
        self._deadline = self.began + self.deadline_s

    @property
    def late(self) -> list[int]:
        """Return the nodes that were asked and have not answered."""
        return sorted(self._times.keys() - self.answered)

    def due(self, present: Sequence[int], now: float) -> list[int]:
        """Return the nodes to ask now."""
        return [node for node in present if node not in self.answered and self._is_due(node, now)]

    def note_asked(self, nodes: Collection[int]) -> None:
        """Take note of whom it asks."""
        for node in nodes:
            self._times[node] = self._times.get(node, 0) + 1
            self._gone.pop(node, None)

    def note_gone(self, node: int, now: float) -> None:
        """Take note that no question to a node is under way any more, though it has not answered."""
        if node not in self.answered:
            self._gone[node] = now

    def note_answer(self, node: int, now: float, *, counted: bool) -> None:
        """Take note of a node's answer, and whether it sent its counts."""
        self.answered.add(node)
        if counted:
            self._counted.add(node)
            if len(self._counted) == self.quorum:
                self._deadline = closing_time(self.began, now, grace_s=self.grace_s, deadline=self._deadline)

    def admits(self, node: int) -> bool:
        """Return whether this is the first answer of a node that was asked."""
        return node in self._times and node not in self.answered

    def is_over(self, may_come: Collection[int], now: float) -> bool:
        """Return whether nobody is waited for any more.

        Args:
            may_come: members that are not present, and nodes that have not said yet whether they are members.
            now: on the caller's clock.
        """
        if now >= self._deadline:
            return True
        waited_for = [node for node in self.late if now - self._gone.get(node, now) < COMES_BACK_S]
        return bool(self._times or self.answered) and not waited_for and not set(may_come) - self.answered

    def _is_due(self, node: int, now: float) -> bool:
        if node not in self._times:
            return True
        since, pause = self._gone.get(node), SHORTEST_PAUSE_S * 2.0 ** min(self._times[node] - 1, 10)
        return since is not None and now - since >= min(LONGEST_PAUSE_S, pause)
