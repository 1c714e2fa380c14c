"""Drives one secure sum over Flower's Grid, from the masked vectors that have come to the opened sum, or to its loss.

The sum is of a round's parts or of an evaluation's counts: its session's context says of which.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from server.rounds.questions import Questions
from server.rounds.round import RoundRecord
from server.secure_sum.files import Fixed, SumFiles
from server.secure_sum.legs import FOR_GOOD, Legs
from server.secure_sum.roster import RunRoster
from server.secure_sum.running_sum import RunningSum
from shared.errors import PeerError, RunError, VersionError
from shared.protocol.messages import Leg, LegTask, Status
from shared.protocol.sum_records import decode_leg_reply, encode_leg
from shared.secure_sum.context import RoundContext
from shared.secure_sum.masks import Vector
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


@dataclass(frozen=True)
class Opened:
    """The outcome of one sum."""

    names: tuple[str, ...]
    """The nodes whose parts are in it, or were to be."""
    total: Vector | None
    """None if it is lost."""
    reason: str = ""
    """Why it is lost; empty if it is not."""
    blamed: list[dict[str, Any]] = field(default_factory=list)
    """Who broke a rule."""


class Opening:
    """Opens the sums of one run.

    Guarantee: the survivors of a sum are on the disk before the first node is asked to sign them.
    Guarantee: a sum has one set of survivors, however often the server is killed.

    Args:
        grid: Flower's.
        roster: of the run.
        files: of the run.
        around: the server.
    """

    def __init__(self, grid: Grid, roster: RunRoster, files: SumFiles, around: Surroundings) -> None:
        self._grid, self.roster, self._files, self.around = grid, roster, files, around

    def session(self, context: RoundContext, length: int) -> RunningSum:
        """Begin a sum, to which masked vectors are added."""
        return RunningSum(self.fixed_roster, context, length)

    def keep(self, session: RunningSum, name: str, message: bytes) -> None:
        """Keep what a node has sent, and that it takes the roster."""
        self._files.keep_vector(session.context.round, self._place(name), message, session.context.purpose)
        self.roster.note_taken(name)

    @property
    def fixed_roster(self) -> Roster:
        """Return the roster of the run.

        Raises:
            RunError: it has none yet.
        """
        if self.roster.fixed is None:
            raise RunError("Expected the roster of the run's secure sum to be fixed before its first task.")
        return self.roster.fixed

    def resumed(self, context: RoundContext, length: int) -> tuple[RunningSum, Fixed] | None:
        """Return a sum whose survivors were fixed before the server was cut off; None if this one's were not."""
        stored = self._files.fixed(context.round, context.purpose)
        if stored is None:
            return None
        fixed, records = stored
        if (fixed.adapter_sha256, fixed.roster_sha256) != (context.adapter_sha256, context.roster_sha256):
            return None
        try:
            return RunningSum.resume(self.fixed_roster, context, length, records), fixed
        except SecureSumError as error:
            log.warning("What %s had kept cannot be used: %s", _of(context), error)
            return None

    def fix(self, session: RunningSum, record: RoundRecord | None = None) -> Fixed | None:
        """Fix the survivors among those whose vectors have come; None if too few of them came back in time."""
        context = session.context
        if not self._enough_are_present(session, self.around.now()):
            return None
        self._leave_out_who_is_away(session)
        session.fix()
        fixed = Fixed(context.round, context.adapter_sha256, context.roster_sha256, self.around.now(), record)
        self._files.keep(fixed, session.records, context.purpose)
        return fixed

    def open(self, session: RunningSum, fixed: Fixed) -> Opened:
        """Ask the survivors until their sum is open, or nothing can open it any more."""
        names = () if session.survivors is None else session.survivors.names
        self._note("fixed", session.context, survivors=list(names), missing=list(session.missing))
        legs = Legs(session)
        reason = self._ask(legs, fixed.since)
        self.around.waits("")
        if not reason:
            session.open()
            reason = "" if session.state is State.OPENED else "a node dealt shares of another mask than its own"
        for fault in session.faults:
            dealer, holder = fault.dealer, fault.holder
            log.warning("%s: %s: dealt by %s, held by %s", _of(session.context), fault.code, dealer, holder)
        blamed = [fault._asdict() for fault in session.faults]
        return Opened(names, None if reason else session.total, reason, blamed)

    def note_opened(self, context: RoundContext, opened: Opened) -> None:
        """Note that a sum was opened and is used."""
        self._note("opened", context, nodes=len(opened.names), blamed=opened.blamed)

    def note_lost(self, context: RoundContext, reason: str, blamed: list[dict[str, Any]] | None = None) -> None:
        """Note that a sum was not opened, or is not used."""
        log.warning("The sum of %s is lost: %s.", _of(context), reason)
        self._note("lost", context, reason=reason, blamed=blamed or [])

    def _note(self, kind: str, context: RoundContext, **body: Any) -> None:
        purpose = {} if context.purpose == "training" else {"purpose": context.purpose}
        self.around.note(kind, {"round": context.round, **body, **purpose})

    def _place(self, name: str) -> int:
        return self.fixed_roster.positions[name]

    def _enough_are_present(self, session: RunningSum, since: float) -> bool:
        """Wait until as many of the senders as the threshold are present; false if that takes too long."""
        while len(set(self._present()) & set(session.arrived)) < session.threshold:
            self.around.waits("waiting for the nodes that have sent their part to come back")
            left = set(session.arrived) - self._gone().keys()
            if len(left) < session.threshold or self.around.now() - since > self.around.fixed_for_s:
                return False
            time.sleep(min(LONGEST_POLL_S, self.around.look_every_s))
        self.around.waits("")
        return True

    def _leave_out_who_is_away(self, session: RunningSum) -> None:
        """Leave senders out that would hold up the sum.

        If everybody has sent its part, as many as the threshold can open the sum, whoever they are. If a node is
        missing, each survivor alone knows its pair mask with it, so one that is away would be waited for. As many as
        the study's quorum stay: nodes sign no set of fewer than they have approved.
        """
        if len(session.arrived) == len(session.roster.names):
            return
        for name in {*session.arrived} - {*self._present()}:
            message = self._files.vector(session.context.round, self._place(name), session.context.purpose)
            if len(session.arrived) > self.roster.quorum and message is not None:
                with suppress(SecureSumError):  # what the disk gives back is not what came: it stays in the sum
                    session.leave_out(name, message)
                    log.info("The sum of %s is opened without %s, which went away.", _of(session.context), name)

    def _ask(self, legs: Legs, since: float) -> str:
        """Ask the survivors until their sum can be opened; returns why it cannot, or nothing."""
        session, pause, looked_at = legs.session, SHORTEST_POLL_S, float("-inf")
        present, signed, began = dict[str, int](), False, self.around.now()
        last_chance_s = min(LAST_CHANCE_S, self.around.fixed_for_s)
        questions = Questions(self._grid, lambda node: self._message(legs, node))
        while not session.can_open:
            for name, reason in self._gone().items():
                legs.note_never(name, reason)
            if reason := legs.hopeless():
                return reason
            if (at := self.around.now()) - since > self.around.fixed_for_s and at - began > last_chance_s:
                return f"its time is over without an answer of {', '.join(legs.waits_for())}"
            if (now := time.monotonic()) - looked_at >= self.around.look_every_s:
                present, looked_at = self._present(), now
                self._say_what_it_waits_for(legs, present)
            due = legs.due(present, now)
            for name, leg in due:
                legs.note_asked(name, leg, now)
            questions.ask([present[name] for name, _leg in due])
            arrived = False
            for node, reply in questions.replies():
                arrived = True
                self._take(legs, node, reply)
            if session.is_signed and not signed:
                signed = True
                self._note("signed", session.context, by=legs.signers())
            if not arrived:
                pause = SHORTEST_POLL_S if due else min(2 * pause, LONGEST_POLL_S)
                time.sleep(pause)
        return ""

    def _take(self, legs: Legs, node: int, reply: Message) -> None:
        """Take an answer to one of the two questions; whoever breaks a rule is named, and asked no more this round."""
        name, session = self.around.name_of(node), legs.session
        if not reply.has_content():
            return  # its connection broke, or the question expired: it is asked again
        try:
            answer = decode_leg_reply(reply.content)
            if answer.status in FOR_GOOD:  # also of a node that cannot read the question, and so names no round
                legs.note_never(name, answer.status.name.lower())
            elif (answer.study_run, answer.round) != (session.context.run, session.context.round):
                raise PeerError("Expected an answer about this round, got one about another.")
            elif answer.status is Status.TRAINED and answer.leg == "survivors":
                session.add_signature(name, answer.content)
            elif answer.status is Status.TRAINED:
                session.add_opening(name, answer.content)
        except SecureSumError as error:
            self._blame(legs, name, str(error.code))
        except VersionError:
            legs.note_never(name, Status.REFUSED_VERSION.name.lower())
        except PeerError:
            self._blame(legs, name, "malformed")

    def _blame(self, legs: Legs, name: str, code: str) -> None:
        context = legs.session.context
        log.warning("%s: the answer of %s breaks a rule of the secure sum: %s.", _of(context), name, code)
        self._note("blamed", context, name=name, code=code)
        legs.note_never(name, code)

    def _say_what_it_waits_for(self, legs: Legs, present: Mapping[str, int]) -> None:
        waits_for = legs.waits_for()
        away = [] if any(name in present for name in waits_for) else waits_for
        named = f"waiting for {', '.join(away)} to open the sum of {_of(legs.session.context)}"
        self.around.waits(named if away else "")

    def _gone(self) -> Mapping[str, str]:
        self.around.note_gone()
        return self.roster.gone

    def _present(self) -> dict[str, int]:
        """Return the nodes that are present, by name."""
        return {name: node for node in self._grid.get_node_ids() if (name := self.around.name_of(node))}

    def _message(self, legs: Legs, node: int) -> Message:
        name = self.around.name_of(node)
        leg: Leg = legs.question(name) or "survivors"
        session, context = legs.session, legs.session.context
        content = session.survivors_question() if leg == "survivors" else session.opening_question(name)
        task = LegTask(leg, context.study_sha256, context.run, context.round, content, context.purpose)
        number = context.round if context.purpose == "training" else f"{context.purpose}-{context.round}"
        question, group = encode_leg(task), f"{context.run}/{number}/{leg}"
        return Message(question, node, "query", group_id=group, ttl=QUESTION_LIFE_S)


def _of(context: RoundContext) -> str:
    """Name what a sum is of."""
    return f"round {context.round}" if context.purpose == "training" else f"the evaluation after round {context.round}"
