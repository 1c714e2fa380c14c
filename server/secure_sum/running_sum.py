"""A session that adds each masked vector to a sum when it comes, and keeps of the vector what was dealt with it.

So a server's memory and its record of a fixed set do not grow with the number of nodes, but for 11 kB a node among a
hundred. Whoever leaves out a vector that came has to bring it again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Self

import numpy as np

from shared.secure_sum.context import RoundContext
from shared.secure_sum.encoding import malformed
from shared.secure_sum.masks import VALUE_BYTES, Masked
from shared.secure_sum.messages import MaskedVector, SurvivorsQuestion
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.roster import Roster
from shared.secure_sum.session import Record, Session, State
from shared.secure_sum.survivors import Survivors

SUM = "sum"
NO_VALUES: Masked = np.zeros(0, np.uint64)


class RunningSum(Session):
    """One round's secure sum, whose masked vectors are in one sum.

    Guarantee: no masked vector is kept once it is in the sum, and the same vectors open to the same sum.
    """

    def __init__(self, roster: Roster, context: RoundContext, length: int) -> None:
        super().__init__(roster, context, length)
        self._sum: Masked = np.zeros(length, np.uint64)
        self._digests: dict[str, bytes] = {}

    @classmethod
    def resume(cls, roster: Roster, context: RoundContext, length: int, records: Mapping[str, bytes]) -> Self:
        """Make a session again from the records of a set that was fixed; one that was open is asked again instead.

        Raises:
            SecureSumError: these are no records of a fixed set of this session.
        """
        session = cls(roster, context, length)
        if "survivors" not in records or len(records.get(SUM, b"")) != VALUE_BYTES * length:
            raise malformed(f"a fixed set with a sum of {length} values")
        question = SurvivorsQuestion.from_bytes(records["survivors"])
        if question.context != context.digest:
            raise SecureSumError(Refusal.OTHER_CONTEXT)
        for name in session._named(records, "masked"):
            session._keep(name, MaskedVector.from_bytes(records[session._key("masked", name)]))
        session._sum = np.frombuffer(records[SUM], "<u8").astype(np.uint64)
        session._digests = dict(question.survivors.digests)
        if session._digests.keys() != {*session.arrived}:
            raise malformed("what each survivor dealt")
        session._fix(question.survivors)
        return session

    @property
    def records(self) -> Mapping[str, bytes]:
        """All that must be on disk once the set is fixed."""
        records = super().records
        if self.state is State.FIXED:
            return {**records, SUM: self._sum.astype("<u8", copy=False).tobytes()}
        return records

    def add_masked(self, name: str, message: bytes) -> Record | None:
        """Add a node's vector to the sum; returns nothing for one that came late.

        Raises:
            SecureSumError: it is no vector of this round, or the node sent one before.
        """
        record = super().add_masked(name, message)
        if record is not None:
            masked = MaskedVector.from_bytes(message)
            self._sum += masked.values
            self._digests[name] = hashlib.sha256(message).digest()
            self._keep(name, masked)
        return record

    def leave_out(self, name: str, message: bytes) -> None:
        """Take a vector that came out of the sum again.

        Raises:
            SecureSumError: this is not what came, or the set is fixed.
        """
        self._expect(State.OPEN)
        if self._digests.get(name) != hashlib.sha256(message).digest():
            raise SecureSumError(Refusal.STRANGER)
        self._sum -= MaskedVector.from_bytes(message).values
        del self._digests[name], self._dealt[name], self._records[self._key("masked", name)]

    def fix(self, names: Iterable[str] | None = None) -> Record:
        """Fix the set: all that arrived. Nothing that comes later counts.

        Raises:
            SecureSumError: they are fewer than the threshold, others are named, or a set is fixed already.
        """
        if names is not None and {*names} != {*self.arrived}:
            raise SecureSumError(Refusal.STRANGER)
        return super().fix()

    def _keep(self, name: str, masked: MaskedVector) -> None:
        """Keep of a vector what was dealt with it."""
        self._records[self._key("masked", name)] = replace(masked, values=NO_VALUES).to_bytes()
        self._dealt[name] = masked.commitment, masked.dealt

    def _arrived_of(self, names: Iterable[str]) -> Survivors:
        if not {*names} <= self._digests.keys():
            raise SecureSumError(Refusal.STRANGER)
        return Survivors.of({name: self._digests[name] for name in names})

    def _masked_total(self) -> Masked:
        return self._sum.copy()
