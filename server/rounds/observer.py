"""The interface through which a study run reports its progress."""

from collections.abc import Sequence
from typing import Any, Protocol

from server.rounds.round import RoundRecord


class Observer(Protocol):
    """Receives the events of a study run as they happen."""

    def asks(self, number: int, nodes: Sequence[int], *, again: Sequence[int] = (), ask: int = 1) -> None:
        """Receive whom a round is about to ask; comes before the message leaves.

        Args:
            number: of the round.
            nodes: to ask now.
            again: those of them that were asked before.
            ask: how many deadlines of the round have begun.
        """
        ...

    def gone(self, number: int, node: int) -> None:
        """Receive a node that did not answer because its connection broke; it is asked again when it is back."""
        ...

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Receive one node's answer to a round.

        Args:
            number: of the round.
            answered: nodes that have answered so far.
            asked: nodes that were asked.
            node: that has answered.
            verdict: `accepted`, the code of its refusal, or the reason why its update was rejected.
        """
        ...

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Receive a round that is over and durable; None is the state before the first."""
        ...
