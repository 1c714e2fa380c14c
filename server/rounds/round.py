"""One round as a state machine without IO.

Rules
1. Every node present at the start is asked, once; or a cohort of them, as `server/rounds/cohort.py` draws it.
2. The first answer of a node counts; a second one, or one from a node that was not asked, is rejected.
3. The round closes when every asked node has answered, or at its deadline; who is silent then is `missing`.
4. A refusal or failure is an answer: it is recorded with its code and costs the round nothing else.
5. With fewer accepted updates than the quorum the round is `skipped` and the global adapter stays as it was.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import SettingsError


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, as checkpoints and results keep it."""

    round: int
    outcome: Literal["aggregated", "skipped"]
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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


@dataclass
class Round:
    """A round in progress; the caller brings events and the time."""

    number: int
    asked: frozenset[int]
    quorum: int
    deadline: float
    """On the caller's clock."""
    accepted: list[int] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    _answered: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not self.asked:
            raise SettingsError(f"Expected at least one node to ask in round {self.number}, got none.")

    def admits(self, node: int) -> bool:
        """Return whether this is the first answer of a node that was asked; anything else is rejected here."""
        if node not in self.asked:
            self.rejected.append({"node": node, "reason": "stranger"})
            return False
        if node in self._answered:
            self.rejected.append({"node": node, "reason": "duplicate"})
            return False
        self._answered.add(node)
        return True

    def accept(self, node: int) -> None:
        """Take note that a node's update was accepted."""
        self.accepted.append(node)

    def reject(self, node: int, reason: str) -> None:
        """Take note that a node's update was rejected, and why."""
        self.rejected.append({"node": node, "reason": reason})

    def refuse(self, node: int, status: str) -> None:
        """Take note that a node answered with a code instead of an update."""
        self.refused.append({"node": node, "status": status})

    def closed(self, now: float) -> bool:
        """Return whether there is nothing more to wait for."""
        return self._answered >= self.asked or now >= self.deadline

    @property
    def reached_quorum(self) -> bool:
        """Return whether enough updates were accepted to aggregate."""
        return len(self.accepted) >= self.quorum

    def record(self, *, bytes_up: int, bytes_down: int, seconds: dict[str, float]) -> RoundRecord:
        """Return the record of a round that is over."""
        return RoundRecord(
            round=self.number,
            outcome="aggregated" if self.reached_quorum else "skipped",
            asked=sorted(self.asked),
            accepted=sorted(self.accepted),
            rejected=sorted(self.rejected, key=lambda entry: (entry["node"], entry["reason"])),
            refused=sorted(self.refused, key=lambda entry: int(entry["node"])),
            missing=sorted(self.asked - self._answered),
            bytes_up_per_node=bytes_up,
            bytes_down_per_node=bytes_down,
            seconds=seconds,
        )
