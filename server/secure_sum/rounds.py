"""Drives the secure sum of a run's rounds over Flower's Grid: from the roster to the opened sum of each round.

| a round is | what is on the disk | what a server that was killed does |
|---|---|---|
| open | whom it asked | asks them again: nodes send the same bytes |
| fixed | the survivors, with what opens their sum | asks the survivors again to sign the same set, and to open it |
| opened, lost | the checkpoint, as for any round | goes on with the next round |
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from server.rounds.questions import Questions
from server.rounds.replies import Replies
from server.rounds.round import RoundRecord
from server.secure_sum.collection import MaskedReplies
from server.secure_sum.files import Fixed, SumFiles
from server.secure_sum.legs import FOR_GOOD, Legs
from server.secure_sum.roster import RunRoster
from server.secure_sum.running_sum import RunningSum
from server.secure_sum.step import Step, SumRefused
from shared.errors import PeerError, RunError, VersionError
from shared.protocol.messages import Leg, LegTask, Status, TrainTask, Vector
from shared.protocol.sum_records import decode_leg_reply, encode_leg
from shared.secure_sum.context import RoundContext
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Roster
from shared.secure_sum.session import State

log = logging.getLogger(__name__)
FIXED_FOR_S = 24 * 3600.0
"""How long the survivors of a round may take to open their sum: a machine that is off over night comes back."""
LAST_CHANCE_S = 120.0
"""How long survivors are asked whose time went by while the server was off."""
LOOK_EVERY_S, SHORTEST_POLL_S, LONGEST_POLL_S = 1.0, 0.01, 0.2
QUESTION_LIFE_S = 120.0
Note = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Surroundings:
    """Ties a run's secure sum to the server that it runs in."""

    name_of: Callable[[int], str]
    """A node's name by Flower's number; empty if there is none."""
    note: Note = lambda _kind, _body: None
    """Keeps an event of the run."""
    waits: Callable[[str], None] = lambda _reason: None
    """Is told what a fixed round waits for, and nothing once it goes on."""
    note_gone: Callable[[], None] = lambda: None
    """Looks for nodes of the roster that take no further part."""
    fixed_for_s: float = FIXED_FOR_S
    now: Callable[[], float] = time.time
    """Seconds since 1970: a fixed round's time goes on while no process is there."""
    look_every_s: float = LOOK_EVERY_S


class SecureRounds:
    """The secure sum of one run, round by round.

    Guarantee: a round's survivors are on the disk before the first node is asked to sign them.
    Guarantee: a round has one set of survivors, however often the server is killed.

    Args:
        grid: Flower's.
        roster: of the run.
        files: of the run.
        step: makes the next adapter of an opened sum.
        around: the server.
    """

    def __init__(self, grid: Grid, roster: RunRoster, files: SumFiles, step: Step, around: Surroundings) -> None:
        self._grid, self._roster, self._files, self._step, self._around = grid, roster, files, step, around

    @property
    def quorum(self) -> int:
        """Fewest nodes that make a round."""
        return self._roster.quorum

    def task(self, task: TrainTask) -> TrainTask:
        """Return the task with the roster of the run in it.

        Raises:
            RunError: it has none yet.
        """
        return replace(task, roster=self._identity(task)[0].to_bytes())

    def replies(self, task: TrainTask) -> MaskedReplies:
        """Start the collection of one round's masked vectors."""
        session = self._session(task)

        def keep(place: int, message: bytes) -> None:
            self._files.keep_vector(task.round, place, message)
            self._roster.note_taken(session.roster.names[place - 1])

        return MaskedReplies(task, session, self._around.name_of, keep)

    def resumed(self, task: TrainTask) -> tuple[Vector, RoundRecord] | None:
        """Finish a round whose survivors were fixed before the server was cut off; None if this one's were not."""
        stored = None if self._roster.fixed is None else self._files.fixed(task.round)
        if stored is None or self._roster.fixed is None:
            return None
        fixed, records = stored
        if (fixed.adapter_sha256, fixed.roster_sha256) != (task.adapter_sha256, self._roster.fixed.sha256):
            return None
        try:
            session = RunningSum.resume(*self._identity(task), records)
        except SecureSumError as error:
            log.warning("What round %d had kept cannot be used: %s", task.round, error)
            return None
        return self._finish(task, session, fixed)

    def close(self, task: TrainTask, replies: Replies, record: RoundRecord) -> tuple[Vector, RoundRecord]:
        """Fix the survivors of a round that has its quorum, and open their sum.

        Returns:
            The next adapter and the record; the same adapter if the round is lost.
        """
        session = replies.session if isinstance(replies, MaskedReplies) else self._session(task)
        since = self._around.now()
        if not self._enough_are_present(session, since):
            return self._lost(task, record, "fewer than the threshold of those that had sent their part came back")
        self._leave_out_who_is_away(task, session)
        session.fix()
        fixed = Fixed(task.round, task.adapter_sha256, session.context.roster_sha256, self._around.now(), record)
        self._files.keep(fixed, session.records)
        return self._finish(task, session, fixed)

    def _finish(self, task: TrainTask, session: RunningSum, fixed: Fixed) -> tuple[Vector, RoundRecord]:
        started, record = time.monotonic(), fixed.record
        names = [] if session.survivors is None else list(session.survivors.names)
        self._around.note("fixed", {"round": task.round, "survivors": names, "missing": list(session.missing)})
        legs = Legs(session)
        reason = self._ask(task, legs, fixed.since)
        self._around.waits("")
        if not reason:
            session.open()
            reason = "" if session.state is State.OPENED else "a node dealt shares of another mask than its own"
        blamed = [fault._asdict() for fault in session.faults]
        for fault in session.faults:
            log.warning("Round %d: %s: dealt by %s, held by %s", task.round, fault.code, fault.dealer, fault.holder)
        record.seconds["open"] = time.monotonic() - started
        if reason or session.total is None:
            return self._lost(task, record, reason, blamed=blamed)
        try:
            adapter = self._step(task.round, session.total, len(names), task.adapter)
        except SumRefused as error:
            return self._lost(task, record, str(error), blamed=blamed)
        self._around.note("opened", {"round": task.round, "nodes": len(names), "blamed": blamed})
        return adapter, record

    def _lost(
        self, task: TrainTask, record: RoundRecord, reason: str, *, blamed: list[dict[str, Any]] | None = None
    ) -> tuple[Vector, RoundRecord]:
        log.warning("The sum of round %d is lost: %s.", task.round, reason)
        self._around.note("lost", {"round": task.round, "reason": reason, "blamed": blamed or []})
        return task.adapter, replace(record, outcome="lost")

    def _enough_are_present(self, session: RunningSum, since: float) -> bool:
        """Wait until as many of the senders as the threshold are present; false if that takes too long."""
        while len(set(self._present()) & set(session.arrived)) < session.threshold:
            self._around.waits("waiting for the nodes that have sent their part to come back")
            left = set(session.arrived) - self._gone().keys()
            if len(left) < session.threshold or self._around.now() - since > self._around.fixed_for_s:
                return False
            time.sleep(min(LONGEST_POLL_S, self._around.look_every_s))
        self._around.waits("")
        return True

    def _leave_out_who_is_away(self, task: TrainTask, session: RunningSum) -> None:
        """Leave senders out that would hold up the sum.

        If everybody has sent its part, as many as the threshold can open the sum, whoever they are. If a node is
        missing, each survivor alone knows its pair mask with it, so one that is away would be waited for. As many as
        the study's quorum stay: nodes sign no set of fewer than they have approved.
        """
        if len(session.arrived) == len(session.roster.names):
            return
        for name in {*session.arrived} - {*self._present()}:
            message = self._files.vector(task.round, session.roster.positions[name])
            if len(session.arrived) > self.quorum and message is not None:
                with suppress(SecureSumError):  # what the disk gives back is not what came: it stays in the sum
                    session.leave_out(name, message)
                    log.info("The sum of round %d is opened without %s, which went away.", task.round, name)

    def _ask(self, task: TrainTask, legs: Legs, since: float) -> str:
        """Ask the survivors until their sum can be opened; returns why it cannot, or nothing."""
        session, pause, looked_at = legs.session, SHORTEST_POLL_S, float("-inf")
        present, signed, began = dict[str, int](), False, self._around.now()
        last_chance_s = min(LAST_CHANCE_S, self._around.fixed_for_s)
        questions = Questions(self._grid, lambda node: self._message(task, legs, node))
        while not session.can_open:
            for name, reason in self._gone().items():
                legs.note_never(name, reason)
            if reason := legs.hopeless():
                return reason
            if (at := self._around.now()) - since > self._around.fixed_for_s and at - began > last_chance_s:
                return f"its time is over without an answer of {', '.join(legs.waits_for())}"
            if (now := time.monotonic()) - looked_at >= self._around.look_every_s:
                present, looked_at = self._present(), now
                self._say_what_it_waits_for(task.round, legs, present)
            due = legs.due(present, now)
            for name, leg in due:
                legs.note_asked(name, leg, now)
            questions.ask([present[name] for name, _leg in due])
            arrived = False
            for node, reply in questions.replies():
                arrived = True
                self._take(task, legs, node, reply)
            if session.is_signed and not signed:
                signed = True
                self._around.note("signed", {"round": task.round, "by": legs.signers()})
            if not arrived:
                pause = SHORTEST_POLL_S if due else min(2 * pause, LONGEST_POLL_S)
                time.sleep(pause)
        return ""

    def _take(self, task: TrainTask, legs: Legs, node: int, reply: Message) -> None:
        """Take an answer to one of the two questions; whoever breaks a rule is named, and asked no more this round."""
        name, session = self._around.name_of(node), legs.session
        if not reply.has_content():
            return  # its connection broke, or the question expired: it is asked again
        try:
            answer = decode_leg_reply(reply.content)
            if answer.status in FOR_GOOD:  # also of a node that cannot read the question, and so names no round
                legs.note_never(name, answer.status.name.lower())
            elif (answer.study_run, answer.round) != (task.study_run, task.round):
                raise PeerError("Expected an answer about this round, got one about another.")
            elif answer.status is Status.TRAINED and answer.leg == "survivors":
                session.add_signature(name, answer.content)
            elif answer.status is Status.TRAINED:
                session.add_opening(name, answer.content)
        except SecureSumError as error:
            self._blame(task.round, legs, name, str(error.code))
        except VersionError:
            legs.note_never(name, Status.REFUSED_VERSION.name.lower())
        except PeerError:
            self._blame(task.round, legs, name, "malformed")

    def _blame(self, number: int, legs: Legs, name: str, code: str) -> None:
        log.warning("Round %d: the answer of %s breaks a rule of the secure sum: %s.", number, name, code)
        self._around.note("blamed", {"round": number, "name": name, "code": code})
        legs.note_never(name, code)

    def _say_what_it_waits_for(self, number: int, legs: Legs, present: Mapping[str, int]) -> None:
        waits_for = legs.waits_for()
        away = [] if any(name in present for name in waits_for) else waits_for
        self._around.waits(f"waiting for {', '.join(away)} to open the sum of round {number}" if away else "")

    def _gone(self) -> Mapping[str, str]:
        self._around.note_gone()
        return self._roster.gone

    def _present(self) -> dict[str, int]:
        """Return the nodes that are present, by name."""
        return {name: node for node in self._grid.get_node_ids() if (name := self._around.name_of(node))}

    def _message(self, task: TrainTask, legs: Legs, node: int) -> Message:
        name = self._around.name_of(node)
        leg: Leg = legs.question(name) or "survivors"
        session = legs.session
        content = session.survivors_question() if leg == "survivors" else session.opening_question(name)
        question = encode_leg(LegTask(leg, task.study_sha256, task.study_run, task.round, content))
        group = f"{task.study_run}/{task.round}/{leg}"
        return Message(question, node, "query", group_id=group, ttl=QUESTION_LIFE_S)

    def _session(self, task: TrainTask) -> RunningSum:
        return RunningSum(*self._identity(task))

    def _identity(self, task: TrainTask) -> tuple[Roster, RoundContext, int]:
        if self._roster.fixed is None:
            raise RunError("Expected the roster of the run's secure sum to be fixed before its first task.")
        roster = self._roster.fixed
        context = RoundContext(task.study_run, task.study_sha256, task.round, task.adapter_sha256, roster.sha256)
        return roster, context, len(task.adapter)
