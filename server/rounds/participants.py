"""Who is asked in a round: everyone present, or those whose operators have said yes to the study.

In a deployment a study is first shown to every node; its operator decides in minutes or days. The first round begins
when enough have said yes and nobody present is still thinking, or has thought for longer than a round may take. Whoever
says yes later joins the next round; whoever comes back is asked again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from shared.errors import PeerError, RunError, VersionError
from shared.protocol.flower_records import decode_offer_reply, encode_offer
from shared.protocol.messages import Status, StudyOffer
from shared.protocol.versions import SPOKEN

log = logging.getLogger(__name__)
POLL_S = 0.2
ASK_AGAIN_S, ASK_SELDOM_S, LONGEST_PAUSE_S = 2.0, 30.0, 60.0
OFFER_LIFE_S = 120.0
SOON = (None, Status.AWAITING_APPROVAL, Status.FAILED, Status.REFUSED_LEDGER)
"""What may be otherwise in a moment: a person is there, a vault starts, a command holds the ledger."""


class Roster(Protocol):
    """Decides who is asked."""

    def members(self) -> list[int]:
        """Nodes to ask now, sorted; waits until there are enough.

        Raises:
            RunError: there will not be enough.
        """
        ...

    def heard(self, node: int, status: Status) -> None:
        """A node's answer to a round."""
        ...

    def version(self, node: int) -> int:
        """The version of the protocol to ask it in."""
        ...


class Everyone:
    """All nodes that are present.

    Args:
        grid: Flower's.
        quorum: fewest nodes.
        patience_s: how long to wait for them.
    """

    def __init__(self, grid: Grid, *, quorum: int, patience_s: float) -> None:
        self._grid, self._quorum, self._patience_s = grid, quorum, patience_s

    def members(self) -> list[int]:
        """Everyone, as soon as there are enough."""
        deadline = time.monotonic() + self._patience_s
        while len(nodes := sorted(self._grid.get_node_ids())) < self._quorum:
            if time.monotonic() >= deadline:
                raise RunError(
                    f"Expected at least {self._quorum} nodes, got {len(nodes)} in {self._patience_s:g} s.",
                    hint="The run can be resumed when they are back.",
                )
            time.sleep(POLL_S)
        return nodes

    def heard(self, node: int, status: Status) -> None:
        """Changes nothing."""

    def version(self, node: int) -> int:
        """Ours: they are of our own age."""
        del node
        return SPOKEN.newest


@dataclass
class Stances:
    """What is known of each node: pure bookkeeping.

    | a node that | is |
    |---|---|
    | said yes and is present | a member |
    | has not answered, or awaits its operator, and is present | undecided, and asked again: soon at first |
    | said no | asked again, seldom: an operator may change a policy |

    Whoever thinks for an hour may think for days, so a pause is a quarter of what has been thought already.
    """

    by_node: dict[int, Status] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    """When each node was first asked, or last said something new."""

    def due(self, present: set[int], now: float) -> list[int]:
        """Nodes to ask now."""
        return sorted(node for node in present if self._due(node, now))

    def members(self, present: set[int]) -> list[int]:
        """Nodes that said yes."""
        return sorted(node for node in present if self.by_node.get(node) is Status.APPROVED)

    def undecided(self, present: set[int]) -> list[int]:
        """Nodes whose answer is still to come."""
        return sorted(
            node for node in present if self.by_node.get(node, Status.AWAITING_APPROVAL) is Status.AWAITING_APPROVAL
        )

    def asked(self, node: int, now: float) -> None:
        """A node was asked."""
        self.asked_at[node] = now
        self.since.setdefault(node, now)

    def said(self, node: int, status: Status, now: float) -> None:
        """A node answered."""
        if self.by_node.get(node) is not status:
            self.since[node] = now
        self.by_node[node] = status

    def forget(self, node: int) -> None:
        """A node has to be asked anew."""
        for known in (self.by_node, self.asked_at, self.since):
            known.pop(node, None)

    def told(self, present: set[int]) -> dict[str, list[int]]:
        """Who stands how, for people."""
        found: dict[str, list[int]] = {}
        for node in sorted(present):
            stance = self.by_node.get(node)
            found.setdefault("no_answer_yet" if stance is None else stance.name.lower(), []).append(node)
        return found

    def _due(self, node: int, now: float) -> bool:
        stance, asked = self.by_node.get(node), self.asked_at.get(node)
        if stance is Status.APPROVED or asked is None:
            return stance is not Status.APPROVED
        shortest = ASK_AGAIN_S if stance in SOON else ASK_SELDOM_S
        thought = now - self.since.get(node, asked)
        return now - asked >= min(LONGEST_PAUSE_S, max(shortest, thought / 4))


class Approving:
    """Nodes whose operators have said yes.

    Args:
        grid: Flower's.
        offer: the study run.
        quorum: fewest members.
        patience_s: how long the undecided are waited for once there are enough.
        on_change: told who is present, by stance, whenever it changes.
    """

    def __init__(
        self,
        grid: Grid,
        offer: StudyOffer,
        *,
        quorum: int,
        patience_s: float,
        on_change: Callable[[dict[str, list[int]]], None] = lambda _told: None,
    ) -> None:
        self._grid, self._content, self._run = grid, encode_offer(offer), offer.study_run
        self._spoken = offer.versions
        self._quorum, self._patience_s, self._on_change = quorum, patience_s, on_change
        self._stances, self._open, self._versions = Stances(), dict[str, int](), dict[int, int]()
        self._begun, self._told = False, dict[str, list[int]]()

    def members(self) -> list[int]:
        """Those who said yes; waits for ever, since people decide in their own time."""
        enough_since: float | None = None
        while True:
            present, now = set(self._grid.get_node_ids()), time.monotonic()
            self._ask(self._stances.due(present, now), now)
            self._listen()
            members = self._stances.members(present)
            self._tell(self._stances.told(present))
            if len(members) < self._quorum:
                enough_since = None
            elif self._begun or not self._stances.undecided(present):
                break
            else:
                enough_since = enough_since or now
                if now - enough_since >= self._patience_s:
                    break
            time.sleep(POLL_S)
        self._begun = True
        return members

    def heard(self, node: int, status: Status) -> None:
        """A node that does not know the run any more is shown it again."""
        if status in (Status.REFUSED_POLICY, Status.REFUSED_STUDY, Status.REFUSED_VERSION):
            self._stances.forget(node)

    def version(self, node: int) -> int:
        """The newest that the node speaks as well, as its stance said."""
        return self._versions.get(node, self._spoken.newest)

    def _ask(self, nodes: list[int], now: float) -> None:
        messages = [
            Message(self._content, node, "query", group_id=f"{self._run}/offer", ttl=OFFER_LIFE_S) for node in nodes
        ]
        if messages:
            for message_id, node in zip(self._grid.push_messages(messages), nodes, strict=True):
                self._stances.asked(node, now)
                if message_id:
                    self._open[message_id] = node

    def _listen(self) -> None:
        if not self._open:
            return
        for reply in self._grid.pull_messages(list(self._open)):
            node = self._open.pop(reply.metadata.reply_to_message_id, None)
            if node is None or not reply.has_content():
                continue
            status = self._stance(node, reply)
            if status is not None:
                self._stances.said(node, status, time.monotonic())

    def _stance(self, node: int, reply: Message) -> Status | None:
        try:
            found = decode_offer_reply(reply.content)
        except VersionError as error:
            log.warning("Node %d: %s", node, error)
            return Status.REFUSED_VERSION
        except PeerError:
            return None
        common = self._spoken.common(found.versions)
        if common is None or found.status is Status.REFUSED_VERSION:
            message = "Node %d speaks protocol versions %d to %d, this study needs %d to %d: update the older side."
            log.warning(message, node, *found.versions, *self._spoken)
            return Status.REFUSED_VERSION
        self._versions[node] = common
        return found.status if found.study_run == self._run else None

    def _tell(self, found: dict[str, list[int]]) -> None:
        if found != self._told:
            self._told = found
            self._on_change(found)
