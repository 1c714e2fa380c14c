"""Takes the masked replies of one round: size, study, round and base are judged, and nothing else can be.

What a masked vector holds nobody can read: no length, and no value that is none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message

from server.rounds.replies import Verdict
from server.rounds.round import Reason
from server.rounds.update_filter import Accepted, Rejected, trained_reply
from server.secure_sum.running_sum import RunningSum
from shared.protocol.messages import TrainReply, TrainTask, Vector
from shared.secure_sum.messages import MaskedVector
from shared.secure_sum.refusals import SecureSumError

NO_UPDATE: Vector = np.zeros(0, np.float32)


@dataclass(frozen=True)
class AcceptedVector(Accepted):
    """A masked vector that may be added to the round's sum."""

    message: bytes = field(default=b"", repr=False)


class MaskedReplies:
    """Collects the masked vectors of one round in a session.

    Args:
        task: of the round, with its roster.
        session: of the round.
        name_of: returns a node's name by Flower's number.
        keep: keeps a vector by its node's place in the roster.
    """

    def __init__(
        self,
        task: TrainTask,
        session: RunningSum,
        name_of: Callable[[int], str],
        keep: Callable[[int, bytes], None] = lambda _place, _message: None,
    ) -> None:
        self.session = session
        self._task, self._name_of, self._keep = task, name_of, keep

    def inspect(self, node: int, reply: Message) -> Verdict:
        """Accept or reject one reply by what is public of it."""
        trained = trained_reply(reply, self._task)
        if not isinstance(trained, TrainReply):
            return trained
        reason = self._fault(self._name_of(node), trained.masked)
        if reason is not None:
            return Rejected(reason, trained.ledger)
        return AcceptedVector(NO_UPDATE, trained.ledger, message=trained.masked)

    def add(self, node: int, accepted: Accepted) -> int:
        """Add a masked vector to the sum; returns the bytes that it came in."""
        message = accepted.message if isinstance(accepted, AcceptedVector) else b""
        name = self._name_of(node)
        self._keep(self.session.roster.positions[name], message)
        self.session.add_masked(name, message)
        return len(message)

    def _fault(self, name: str, message: bytes) -> Reason | None:
        session = self.session
        try:
            masked = MaskedVector.from_bytes(message)
        except SecureSumError:
            return Reason.MALFORMED
        if name not in session.roster.positions or masked.name != name:
            return Reason.MALFORMED
        if masked.context != session.context.digest:
            return Reason.STALE
        if len(masked.values) != session.length or len(masked.dealt) != len(session.roster.names):
            return Reason.SHAPE
        return None
