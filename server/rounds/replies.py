"""Judge each reply to one round, and put the accepted ones into the round's collection."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from flwr.app import Message

from server.rounds.round import RoundRecord
from server.rounds.update_bounds import NoiseFloor
from server.rounds.update_filter import Accepted, Declined, Rejected, Unanswered, inspect
from shared.protocol.messages import TrainTask, Vector
from shared.protocol.update_encoding import packed_bytes

Verdict = Accepted | Declined | Rejected | Unanswered


class Replies(Protocol):
    """Judges the replies to one round's task, and collects what they bring."""

    def inspect(self, node: int, reply: Message) -> Verdict:
        """Accept or reject one reply."""
        ...

    def add(self, node: int, accepted: Accepted) -> int:
        """Collect what was accepted; returns the bytes that it came in."""
        ...


class Collection(Protocol):
    """Collects one round's updates."""

    def add(self, update: Vector) -> None:
        """Add one accepted update."""
        ...


class PlainReplies:
    """Takes updates that the server can read, and puts them into a collection.

    Args:
        task: as the nodes are asked it.
        collected: takes the accepted updates.
        largest_norm: of any accepted update.
        floor: of a node's updates, if it is known.
    """

    def __init__(
        self,
        task: TrainTask,
        collected: Collection,
        largest_norm: float,
        *,
        floor: Callable[[int], NoiseFloor | None] = lambda _node: None,
    ) -> None:
        self._task, self._collected, self._largest_norm = task, collected, largest_norm
        self._floor = floor

    def inspect(self, node: int, reply: Message) -> Verdict:
        """Accept or reject one reply, by its update's size, values and length."""
        verdict = inspect(reply, self._task, largest_norm=self._largest_norm)
        if not isinstance(verdict, Accepted):
            return verdict
        floor = self._floor(node)
        return replace(verdict, quiet=floor is not None and floor.is_quiet(verdict.update))

    def add(self, node: int, accepted: Accepted) -> int:
        """Add an update to the collection; returns its packed size."""
        del node
        self._collected.add(accepted.update)
        return packed_bytes(len(accepted.update), self._task.wire)


class SecureSum(Protocol):
    """The rounds of a run whose updates the server can open only as a sum."""

    @property
    def quorum(self) -> int:
        """Fewest nodes that make a round."""
        ...

    def task(self, task: TrainTask) -> TrainTask:
        """Return the task with the roster of the run in it."""
        ...

    def resumed(self, task: TrainTask) -> tuple[Vector, RoundRecord] | None:
        """Finish a round whose survivors were fixed before the server was cut off; None if this one's were not."""
        ...

    def replies(self, task: TrainTask) -> Replies:
        """Start the collection of one round's masked vectors."""
        ...

    def close(self, task: TrainTask, replies: Replies, record: RoundRecord) -> tuple[Vector, RoundRecord]:
        """Open the sum of a round that has its quorum; returns the next adapter, or the same if the round is lost."""
        ...
