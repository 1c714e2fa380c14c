"""One round as a state machine without IO.

Rules
1. A round asks the members present at its start, or a cohort of them, as `server/rounds/cohort.py` draws it.
2. The first answer of a node counts, whichever of its questions it replies to; a second one, or one from a node that
   was not asked, is rejected.
3. An update, accepted or rejected, is an answer for good, and so is every code: a refusal, `failed`, `lost`. Silence is
   none, nor is a connection that broke: such a node is asked again under the same number. What it has paid for it
   sends again at no cost.
4. When those who may still answer in time could not make the quorum, the next members in the round's order are asked
   as well, as many as it lacks.
5. With a quorum, the round is `aggregated` when nobody is waited for any more, when its grace is over, or at the
   deadline. Who is silent then is `missing`: its reply is dropped, and what it has paid stays paid.
6. Without one, the deadline begins a new ask: everybody without an answer is asked again, under a new deadline.
7. The round is `lost` when those without an answer could not make the quorum, or after `MOST_ASKS` deadlines. The
   global adapter stays as it was, and the run goes on with the next number.
8. A deadline at which fewer members than the quorum are present is not counted: the round goes on until they are back,
   since no other round could begin either.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from shared.errors import SettingsError

MOST_ASKS = 10
"""Deadlines that a round may take: enough for an outage of hours, and nobody's silence holds up a run for ever."""
COMES_BACK_S = 60.0
"""How long a node whose connection broke is waited for as if it were there: a link tries again at least so often."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between two questions to a node whose connection breaks again and again, doubled each time."""
Outcome = Literal["aggregated", "lost"]


class Reason(StrEnum):
    """The reason why a reply was rejected."""

    NODE_ERROR = "node-error"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    WRONG_STUDY = "wrong-study"
    STALE = "stale"
    SHAPE = "shape"
    NOT_FINITE = "not-finite"
    NO_MOVEMENT = "no-movement"
    NORM = "norm"
    STRANGER = "stranger"
    """It was not asked."""
    DUPLICATE = "duplicate"
    """It had answered already."""


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, as checkpoints and results keep it."""

    round: int
    outcome: Outcome
    asked: list[int]
    accepted: list[int]
    rejected: list[dict[str, Any]]
    """Each {node, reason}."""
    refused: list[dict[str, Any]]
    """Each {node, status}."""
    missing: list[int]
    bytes_up_per_node: int
    """Payload of one accepted reply; 0 if none came."""
    bytes_down_per_node: int
    seconds: dict[str, float]
    """By phase."""
    asks: int = 1
    """How many deadlines it took."""
    questions: int | None = None
    """Tasks sent, repeated ones included; None if each node asked got one."""
    quiet: list[int] = field(default_factory=list)
    """Those accepted whose update is quieter than their own noise makes it; left out of JSON if there are none."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: value for name, value in vars(self).items() if name != "quiet" or value}


class Decision(NamedTuple):
    """The next action of a round."""

    act: Literal["wait", "ask", "ask again", "aggregate", "lose"]
    nodes: Sequence[int] = ()
    """Whom to ask. In a new ask, `ask again`, there may be nobody to reach just now."""


WAIT, AGGREGATE, LOSE = Decision("wait"), Decision("aggregate"), Decision("lose")


def closing_time(began: float, reached: float, *, grace_s: float, deadline: float) -> float:
    """Return when a round that has its quorum ends: after as long again as the quorum took, and its grace at the least.

    Args:
        began: when the ask under way began.
        reached: when the quorum was.
        grace_s: the shortest wait for the others.
        deadline: the latest.
    """
    return min(deadline, reached + max(grace_s, reached - began))


@dataclass
class Round:
    """A round in progress; the caller brings events, the members and the time.

    Guarantee: while its quorum of members is present, a round lasts at most ten deadlines.
    Guarantee: silence delays a round that has its quorum by its grace, or by as long again as the quorum took.
    Guarantee: a round is lost only if those without an answer could not make its quorum, or if it was asked ten times.
    Guarantee: an update counts once, and the same answers make the same adapter in whatever order they come.
    """

    number: int
    quorum: int
    deadline_s: float
    grace_s: float = math.inf
    """How long whoever is silent is waited for once there is a quorum; by default up to the deadline."""
    asks: int = 0
    """How many deadlines have begun."""
    deadline: float = 0.0
    """Of the ask under way, on the caller's clock; nearer once there is a quorum."""
    times: dict[int, int] = field(default_factory=dict)
    """How often each node was asked."""
    gone: dict[int, float] = field(default_factory=dict)
    """Nodes asked and not answered to which no question is under way, and since when."""
    accepted: list[int] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    quiet: list[int] = field(default_factory=list)
    _answered: set[int] = field(default_factory=set)

    def begin(self, nodes: Collection[int], now: float, *, asked_before: Collection[int] = (), missed: int = 0) -> None:
        """Ask these nodes; those asked before a crash, and away now, are asked when they are back.

        Args:
            nodes: to ask now.
            now: on the caller's clock.
            asked_before: whom the round asked before the server was cut off; they may have paid for it.
            missed: deadlines that had passed by then.
        """
        if not nodes:
            raise SettingsError(f"Expected at least one node to ask in round {self.number}, got none.")
        self.asks = missed
        self.ask(nodes, now, again=True)
        for node in set(asked_before) - set(nodes):
            self.times[node], self.gone[node] = 1, now

    def ask(self, nodes: Iterable[int], now: float, *, again: bool = False) -> None:
        """Take note of whom the round asks; `again` begins a new deadline."""
        if again:
            self.asks, self.deadline = self.asks + 1, now + self.deadline_s
        for node in nodes:
            self.times[node] = self.times.get(node, 0) + 1
            self.gone.pop(node, None)

    def note_gone(self, node: int, now: float) -> None:
        """Take note that no question to a node is under way any more, though it has not answered."""
        if node in self.times and node not in self._answered:
            self.gone[node] = now

    def admits(self, node: int) -> bool:
        """Return whether this is the first answer of a node that was asked; anything else is rejected here."""
        if node not in self.times:
            self.rejected.append({"node": node, "reason": str(Reason.STRANGER)})
            return False
        if node in self._answered:
            self.rejected.append({"node": node, "reason": str(Reason.DUPLICATE)})
            return False
        self._answered.add(node)
        self.gone.pop(node, None)
        return True

    def accept(self, node: int, now: float, *, quiet: bool = False) -> None:
        """Take note that a node's update was accepted, and whether it is quieter than its noise makes it."""
        self.accepted.append(node)
        self.quiet += [node] if quiet else []
        if len(self.accepted) == self.quorum:
            began = self.deadline - self.deadline_s
            self.deadline = closing_time(began, now, grace_s=self.grace_s, deadline=self.deadline)

    def reject(self, node: int, reason: str) -> None:
        """Take note that a node's update was rejected, and why."""
        self.rejected.append({"node": node, "reason": reason})

    def refuse(self, node: int, status: str) -> None:
        """Take note that a node answered with a code instead of an update."""
        self.refused.append({"node": node, "status": status})

    @property
    def answered(self) -> int:
        """Return how many nodes have answered."""
        return len(self._answered)

    def only_waits(self, now: float) -> bool:
        """Return whether it only has to wait, whoever else is present: replies under way could make the quorum."""
        waited_for = len(self.times) - len(self._answered) - len(self.gone)
        enough = len(self.accepted) + waited_for >= self.quorum
        return enough and waited_for > 0 and not self.gone and now < self.deadline

    def is_stalled(self, now: float, present: Sequence[int]) -> bool:
        """Return true past a deadline that does not count, since too few members are there for any round (rule 8)."""
        return now >= self.deadline and len(self.accepted) < self.quorum and len(present) < self.quorum

    def decide(self, now: float, present: Sequence[int], away: Collection[int] = ()) -> Decision:
        """Return what the round does next.

        Args:
            now: on the caller's clock.
            present: members that can be asked now, in the round's own order.
            away: members that are not present.
        """
        over, lacking = now >= self.deadline, self.quorum - len(self.accepted)
        unanswered = self.times.keys() - self._answered
        waited_for = unanswered - self.gone.keys()
        maybe = waited_for | {node for node in self.gone if now - self.gone[node] < COMES_BACK_S}
        back = [node for node in present if self._due(node, now)]
        if lacking <= 0:
            if over or not (maybe or back):
                return AGGREGATE
            return Decision("ask", back) if back else WAIT
        counted = over and len(present) >= self.quorum
        fresh = [node for node in present if node not in self.times]
        # who is away may be back before the deadline, and is not waited for beyond it
        newcomers = fresh if counted else {*fresh, *away} - self.times.keys()
        if len(unanswered) + len(newcomers) < lacking:
            return LOSE if over or not waited_for else WAIT
        if counted:
            if self.asks >= MOST_ASKS:
                return LOSE
            return Decision("ask again", [*(node for node in present if node in unanswered), *fresh[:lacking]])
        nodes = [*back, *fresh[: max(0, lacking - len(maybe | set(back)))]]
        return Decision("ask", nodes) if nodes else WAIT

    def record(self, outcome: Outcome, *, bytes_up: int, bytes_down: int, seconds: dict[str, float]) -> RoundRecord:
        """Return the record of a round that is over."""
        return RoundRecord(
            round=self.number,
            outcome=outcome,
            asked=sorted(self.times),
            accepted=sorted(self.accepted),
            rejected=sorted(self.rejected, key=lambda entry: (entry["node"], entry["reason"])),
            refused=sorted(self.refused, key=lambda entry: int(entry["node"])),
            missing=sorted(self.times.keys() - self._answered),
            bytes_up_per_node=bytes_up,
            bytes_down_per_node=bytes_down,
            seconds=seconds,
            asks=self.asks,
            questions=sum(self.times.values()),
            quiet=sorted(self.quiet),
        )

    def _due(self, node: int, now: float) -> bool:
        since = self.gone.get(node)
        pause = min(LONGEST_PAUSE_S, SHORTEST_PAUSE_S * 2.0 ** min(self.times.get(node, 1) - 1, 10))
        return since is not None and now - since >= pause
