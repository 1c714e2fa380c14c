"""Drives the secure sum of a run's rounds over Flower's Grid: from the roster to the opened sum of each round.

| a round is | what is on the disk | what a server that was killed does |
|---|---|---|
| open | whom it asked | asks them again: nodes send the same bytes |
| fixed | the survivors, with what opens their sum | asks the survivors again to sign the same set, and to open it |
| opened, lost | the checkpoint, as for any round | goes on with the next round |
"""

import time
from dataclasses import replace
from typing import Any

from server.rounds.replies import Replies
from server.rounds.round import RoundRecord
from server.secure_sum.collection import MaskedReplies
from server.secure_sum.files import Fixed
from server.secure_sum.opening import Opening
from server.secure_sum.running_sum import RunningSum
from server.secure_sum.step import Step, SumRefused
from shared.errors import RunError
from shared.protocol.messages import TrainTask, Vector
from shared.secure_sum.context import RoundContext


class SecureRounds:
    """The secure sum of one run, round by round.

    Guarantee: a round's survivors are on the disk before the first node is asked to sign them.
    Guarantee: a round has one set of survivors, however often the server is killed.

    Args:
        opening: of the run's sums.
        step: makes the next adapter of an opened sum.
    """

    def __init__(self, opening: Opening, step: Step) -> None:
        self._opening, self._step = opening, step

    @property
    def quorum(self) -> int:
        """Fewest nodes that make a round."""
        return self._opening.roster.quorum

    def task(self, task: TrainTask) -> TrainTask:
        """Return the task with the roster of the run in it.

        Raises:
            RunError: it has none yet.
        """
        return replace(task, roster=self._opening.fixed_roster.to_bytes())

    def replies(self, task: TrainTask) -> MaskedReplies:
        """Start the collection of one round's masked vectors."""
        session = self._opening.session(self._context(task), len(task.adapter))

        def keep(place: int, message: bytes) -> None:
            self._opening.keep(session, session.roster.names[place - 1], message)

        return MaskedReplies(task, session, self._opening.around.name_of, keep)

    def resumed(self, task: TrainTask) -> tuple[Vector, RoundRecord] | None:
        """Finish a round whose survivors were fixed before the server was cut off; None if this one's were not."""
        if self._opening.roster.fixed is None:
            return None
        resumed = self._opening.resumed(self._context(task), len(task.adapter))
        if resumed is None or resumed[1].record is None:
            return None
        return self._finish(task, *resumed, resumed[1].record)

    def close(self, task: TrainTask, replies: Replies, record: RoundRecord) -> tuple[Vector, RoundRecord]:
        """Fix the survivors of a round that has its quorum, and open their sum.

        Returns:
            The next adapter and the record; the same adapter if the round is lost.
        """
        if not isinstance(replies, MaskedReplies):
            raise RunError("Expected the masked replies of a round with a secure sum.")
        fixed = self._opening.fix(replies.session, record)
        if fixed is None:
            return self._lost(task, record, "fewer than the threshold of those that had sent their part came back")
        return self._finish(task, replies.session, fixed, record)

    def _finish(
        self, task: TrainTask, session: RunningSum, fixed: Fixed, record: RoundRecord
    ) -> tuple[Vector, RoundRecord]:
        started = time.monotonic()
        opened = self._opening.open(session, fixed)
        record.seconds["open"] = time.monotonic() - started
        if opened.total is None:
            return self._lost(task, record, opened.reason, blamed=opened.blamed)
        try:
            adapter = self._step(task.round, opened.total, len(opened.names), task.adapter)
        except SumRefused as error:
            return self._lost(task, record, str(error), blamed=opened.blamed)
        self._opening.note_opened(session.context, opened)
        return adapter, record

    def _lost(
        self, task: TrainTask, record: RoundRecord, reason: str, *, blamed: list[dict[str, Any]] | None = None
    ) -> tuple[Vector, RoundRecord]:
        self._opening.note_lost(self._context(task), reason, blamed)
        return task.adapter, replace(record, outcome="lost")

    def _context(self, task: TrainTask) -> RoundContext:
        roster_sha256 = self._opening.fixed_roster.sha256
        return RoundContext(task.study_run, task.study_sha256, task.round, task.adapter_sha256, roster_sha256)
