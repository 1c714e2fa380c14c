"""Decides who takes part in a round: every node present, or those whose operators have approved the study.

In a deployment a study is first offered to every node; its operator decides in minutes or days. The first round begins
when enough have approved and nobody present is still undecided, or has been undecided for longer than a round may take.
Whoever approves later joins the next round; whoever comes back is asked again.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from shared.errors import PeerError, RunError, VersionError
from shared.protocol.flower_records import decode_offer_reply, encode_offer
from shared.protocol.messages import OfferReply, Status, StudyOffer
from shared.protocol.versions import SPOKEN

log = logging.getLogger(__name__)
POLL_S = 0.2
ASK_AGAIN_S, ASK_SELDOM_S, LONGEST_PAUSE_S = 2.0, 30.0, 60.0
OFFER_LIFE_S = 120.0
CHANGES_QUICKLY = (None, Status.AWAITING_APPROVAL, Status.FAILED, Status.REFUSED_LEDGER)
"""Answers that may be others in a moment: a person is there, a vault starts, a command holds the ledger."""


class Members(NamedTuple):
    """Who may be asked, at one moment; sorted."""

    present: list[int]
    away: list[int]
    """Members that are not present."""
    undecided: list[int]
    """Nodes present whose operators may still approve."""


def why_it_waits(by_status: Mapping[str, Sequence[int]], *, away: int, quorum: int, enrolled: int) -> str:
    """Return in words what keeps a run from its next round.

    Args:
        by_status: the nodes present, by their answer to the offer.
        away: how many have approved and are not present.
        quorum: how many the run needs.
        enrolled: how many nodes there are.
    """
    approved = len(by_status.get(Status.APPROVED.name.lower(), []))
    refused = {status: len(nodes) for status, nodes in sorted(by_status.items()) if status.startswith(("ref", "rej"))}
    if enrolled >= quorum > enrolled - sum(refused.values()):
        answers = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in refused.items())
        return f"cannot reach its quorum: {answers}"
    if approved + away >= quorum:
        return f"waiting for nodes: {approved} of {quorum} are present"
    return f"waiting for approvals: {approved + away} of {quorum}"


class Participants(Protocol):
    """Decides which nodes may be asked."""

    def members(self) -> list[int]:
        """Return the nodes that may be asked now, sorted; waits until there are enough.

        Raises:
            RunError: there will not be enough.
        """
        ...

    def look(self) -> Members:
        """Return who may be asked at this moment, without waiting for anybody."""
        ...

    def note_refusal(self, node: int, status: Status) -> None:
        """Take note of a node that answered a round without an update."""
        ...

    def note_silence(self, node: int) -> None:
        """Take note of a node that has missed another round after the one before."""
        ...

    def note_stall(self, *, stalled: bool) -> None:
        """Take note of whether the round under way waits for members to come back, past its deadline."""
        ...

    def version(self, node: int) -> int:
        """Return the version of the protocol to ask this node in."""
        ...

    def declared_size(self, node: int) -> int | None:
        """Return the public size of the node's dataset; None if it is not known."""
        ...


class AllPresent:
    """Lets every node that is present take part.

    Args:
        grid: Flower's.
        quorum: fewest nodes.
        patience_s: how long to wait for them.
        declared_sizes: of their datasets, by node.
    """

    def __init__(
        self, grid: Grid, *, quorum: int, patience_s: float, declared_sizes: Mapping[int, int] | None = None
    ) -> None:
        self._grid, self._quorum, self._patience_s = grid, quorum, patience_s
        self._sizes = declared_sizes or {}

    def members(self) -> list[int]:
        """Return everyone present as soon as there are enough."""
        deadline = time.monotonic() + self._patience_s
        while len(nodes := sorted(self._grid.get_node_ids())) < self._quorum:
            if time.monotonic() >= deadline:
                raise RunError(
                    f"Expected at least {self._quorum} nodes, got {len(nodes)} in {self._patience_s:g} s.",
                    hint="The run can be resumed when they are back.",
                )
            time.sleep(POLL_S)
        return nodes

    def look(self) -> Members:
        """Return everyone present."""
        return Members(sorted(self._grid.get_node_ids()), [], [])

    def note_refusal(self, node: int, status: Status) -> None:
        """Change nothing: a refusal concerns one round."""

    def note_silence(self, node: int) -> None:
        """Change nothing: whether it is back shows when it is asked."""

    def note_stall(self, *, stalled: bool) -> None:
        """Change nothing: there is no other run."""

    def version(self, node: int) -> int:
        """Return our own newest version: these nodes run the same code."""
        del node
        return SPOKEN.newest

    def declared_size(self, node: int) -> int | None:
        """Return what was declared beforehand."""
        return self._sizes.get(node)


@dataclass
class Answers:
    """Keeps each node's latest answer to the offer: pure bookkeeping.

    | a node that | is |
    |---|---|
    | has approved and is present | a member |
    | has not answered, or awaits its operator, and is present | undecided, and asked again: quickly at first |
    | has refused | asked again, seldom: an operator may change a policy |

    Whoever has been undecided for an hour may stay so for days, so a pause is a quarter of the time that has passed.
    """

    by_node: dict[int, Status] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    """When each node was first asked, or its answer last changed."""

    def due(self, present: set[int], now: float) -> list[int]:
        """Return the nodes to ask now."""
        return sorted(node for node in present if self._due(node, now))

    def members(self, present: set[int]) -> list[int]:
        """Return the nodes present that have approved."""
        return sorted(node for node in present if self.by_node.get(node) is Status.APPROVED)

    def away(self, present: set[int]) -> list[int]:
        """Return the nodes that have approved and are not present."""
        return sorted(node for node in self.by_node.keys() - present if self.by_node[node] is Status.APPROVED)

    def undecided(self, present: set[int]) -> list[int]:
        """Return the nodes present whose answer is still to come."""
        return sorted(
            node for node in present if self.by_node.get(node, Status.AWAITING_APPROVAL) is Status.AWAITING_APPROVAL
        )

    def note_asked(self, node: int, now: float) -> None:
        """Take note that a node was asked."""
        self.asked_at[node] = now
        self.since.setdefault(node, now)

    def note(self, node: int, status: Status, now: float) -> None:
        """Take note of a node's answer."""
        if self.by_node.get(node) is not status:
            self.since[node] = now
        self.by_node[node] = status

    def forget(self, node: int) -> None:
        """Drop all that is known of a node, so that it is asked anew."""
        for known in (self.by_node, self.asked_at, self.since):
            known.pop(node, None)

    def by_status(self, present: set[int]) -> dict[str, list[int]]:
        """Return the nodes present by their answer, in words for people."""
        nodes: dict[str, list[int]] = {}
        for node in sorted(present):
            answer = self.by_node.get(node)
            nodes.setdefault("no_answer_yet" if answer is None else answer.name.lower(), []).append(node)
        return nodes

    def _due(self, node: int, now: float) -> bool:
        answer, asked = self.by_node.get(node), self.asked_at.get(node)
        if answer is Status.APPROVED or asked is None:
            return answer is not Status.APPROVED
        shortest = ASK_AGAIN_S if answer in CHANGES_QUICKLY else ASK_SELDOM_S
        undecided_for = now - self.since.get(node, asked)
        return now - asked >= min(LONGEST_PAUSE_S, max(shortest, undecided_for / 4))


class ApprovedOnly:
    """Lets those nodes take part whose operators have approved the study.

    Args:
        grid: Flower's.
        offer: the study run.
        quorum: fewest members.
        patience_s: how long to wait for the undecided once there are enough.
        on_change: receives the nodes present, by their answer, whenever that changes.
        on_wait: receives them, and who has approved and is away, while there are fewer members than the quorum.
        on_enough: is called when there are enough.
        status_of: reads what a node's answer comes to; default: what it says.
    """

    def __init__(
        self,
        grid: Grid,
        offer: StudyOffer,
        *,
        quorum: int,
        patience_s: float,
        on_change: Callable[[dict[str, list[int]]], None] = lambda _by_status: None,
        on_wait: Callable[[dict[str, list[int]], list[int]], None] = lambda _by_status, _away: None,
        on_enough: Callable[[], None] = lambda: None,
        status_of: Callable[[int, OfferReply], Status] = lambda _node, answer: answer.status,
    ) -> None:
        self._grid, self._content, self._run = grid, encode_offer(offer), offer.study_run
        self._spoken = offer.versions
        self.quorum, self._patience_s, self._on_change = quorum, patience_s, on_change
        self._answers, self._open, self._versions = Answers(), dict[str, int](), dict[int, int]()
        self._sizes = dict[int, int]()
        self._on_wait, self._on_enough, self._status_of = on_wait, on_enough, status_of
        self._started = False
        self._reported: dict[str, list[int]] | None = None

    def members(self) -> list[int]:
        """Return those that have approved; waits for ever, since people decide in their own time."""
        enough_since: float | None = None
        while True:
            members, now = self.look(), time.monotonic()
            if len(members.present) < self.quorum:
                enough_since = None
                self._on_wait(self._reported or {}, members.away)
            elif self._started or not members.undecided:
                break
            else:
                enough_since = enough_since or now
                if now - enough_since >= self._patience_s:
                    break
            time.sleep(POLL_S)
        self._started = True
        self._on_enough()
        return members.present

    def look(self) -> Members:
        """Return who has approved by now; whoever is due is asked, and hears of the study while a round goes on."""
        present, now = set(self._grid.get_node_ids()), time.monotonic()
        self._ask(self._answers.due(present, now), now)
        self._collect()
        self._report(self._answers.by_status(present))
        return Members(self._answers.members(present), self._answers.away(present), self._answers.undecided(present))

    def note_refusal(self, node: int, status: Status) -> None:
        """Offer the study again to a node that does not know the run any more."""
        if status in (Status.REFUSED_POLICY, Status.REFUSED_STUDY, Status.REFUSED_VERSION, Status.REFUSED_MODEL):
            self._answers.forget(node)

    def note_silence(self, node: int) -> None:
        """Offer the study once more to a node that kept missing rounds: an answer costs it nothing and says it is back.

        Guarantee: whoever kept missing rounds is asked for no further one before it has answered an offer.
        """
        self._answers.forget(node)

    def note_stall(self, *, stalled: bool) -> None:
        """Say that the run waits within a round, or no longer: what nodes have paid for they send again."""
        if stalled:
            self._on_wait(self._reported or {}, self._answers.away(set(self._grid.get_node_ids())))
        else:
            self._on_enough()

    def version(self, node: int) -> int:
        """Return the newest version that the node speaks as well, by its answer to the offer."""
        return self._versions.get(node, self._spoken.newest)

    def declared_size(self, node: int) -> int | None:
        """Return the size that the node named with its approval; None for a node older than that."""
        return self._sizes.get(node)

    def _ask(self, nodes: list[int], now: float) -> None:
        messages = [
            Message(self._content, node, "query", group_id=f"{self._run}/offer", ttl=OFFER_LIFE_S) for node in nodes
        ]
        if messages:
            for message_id, node in zip(self._grid.push_messages(messages), nodes, strict=True):
                self._answers.note_asked(node, now)
                if message_id:
                    self._open[message_id] = node

    def _collect(self) -> None:
        if not self._open:
            return
        for reply in self._grid.pull_messages(list(self._open)):
            node = self._open.pop(reply.metadata.reply_to_message_id, None)
            if node is None or not reply.has_content():
                continue
            status = self._answer(node, reply)
            if status is not None:
                self._answers.note(node, status, time.monotonic())

    def _answer(self, node: int, reply: Message) -> Status | None:
        try:
            answer = decode_offer_reply(reply.content)
        except VersionError as error:
            log.warning("Node %d: %s", node, error)
            return Status.REFUSED_VERSION
        except PeerError:
            return None
        common = self._spoken.common(answer.versions)
        if common is None or answer.status is Status.REFUSED_VERSION:
            message = "Node %d speaks protocol versions %d to %d, this study needs %d to %d: update the older side."
            log.warning(message, node, *answer.versions, *self._spoken)
            return Status.REFUSED_VERSION
        self._versions[node] = common
        if answer.declared_size:
            self._sizes[node] = answer.declared_size
        return self._status_of(node, answer) if answer.study_run == self._run else None

    def _report(self, by_status: dict[str, list[int]]) -> None:
        if by_status != self._reported:
            self._reported = by_status
            self._on_change(by_status)
