"""Lets those nodes take part in a run that are in its secure sum: enrolled, approved, and with a signed entry.

The roster is fixed when the first round may begin. Until then a node that approves brings its entry with its answer to
the offer; afterwards only nodes of the roster are asked.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flwr.serverapp import Grid

from server.rounds.participants import ApprovedOnly, Members
from server.run_store.store import Store
from server.secure_sum.roster import FOR_GOOD, REVOKED, Enrolled, RunRoster
from shared.protocol.flower_records import encode_offer
from shared.protocol.messages import OfferReply, Peer, Status, StudyOffer
from shared.secure_sum.entries import certificate_key_bytes

log = logging.getLogger(__name__)
READ_AGAIN_S = 2.0
TOO_LATE = "approved_after_the_roster_was_fixed"


class Federation:
    """Knows the enrolled nodes as the run store has them, read anew every few seconds.

    Args:
        store: the run store.
        clock: monotonic seconds.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock, self._read_at = store, clock, float("-inf")
        self._names, self._keys = dict[int, str](), dict[str, bytes]()

    def name(self, number: int) -> str:
        """Return the name of the node with this number, past ones too; empty if there is none."""
        self._read()
        return self._names.get(number, "")

    def keys(self) -> dict[str, bytes]:
        """Return the certificate keys of the nodes that are enrolled and not revoked, as DER by name."""
        self._read()
        return self._keys

    def peers(self) -> tuple[Peer, ...]:
        """Return the enrolled nodes with the fingerprints of their keys."""
        return tuple(Peer(name, hashlib.sha256(key).hexdigest()) for name, key in sorted(self.keys().items()))

    def note_revoked(self, roster: RunRoster) -> None:
        """Take note of the nodes of a roster that are enrolled no longer."""
        enrolled = self.keys()
        for name in () if roster.fixed is None else roster.fixed.names:
            if name not in enrolled:
                roster.note_gone(name, REVOKED)

    def _read(self) -> None:
        if self._clock() - self._read_at < READ_AGAIN_S:
            return
        self._names = self._store.names()
        enrolled = [node for node in self._store.nodes() if node.status == "enrolled"]
        self._keys = {node.name: key for node in enrolled if (key := _der(node.public_key))}
        self._read_at = self._clock()


class RosterMembers(ApprovedOnly):
    """Lets the nodes of a run's roster take part, and fixes it before the first round.

    Args:
        grid: Flower's.
        offer: the study run; the federation's nodes are named in it.
        roster: of the run.
        federation: knows the enrolled nodes.
        on_roster: is called when the roster is fixed.
        others: as `ApprovedOnly` takes them, but for the quorum.
    """

    def __init__(
        self,
        grid: Grid,
        offer: StudyOffer,
        roster: RunRoster,
        federation: Federation,
        *,
        on_roster: Callable[[], None] = lambda: None,
        on_change: Callable[[dict[str, list[int]]], None] = lambda _by_status: None,
        **others: Any,
    ) -> None:
        self._offer, self._peers, self._roster, self._federation = offer, offer.peers, roster, federation
        self._on_roster = on_roster
        super().__init__(
            grid,
            offer,
            quorum=roster.quorum,
            status_of=self._status,
            on_change=lambda by_status: on_change(self._with_late_ones(by_status)),
            **others,
        )

    def members(self) -> list[int]:
        """Return the nodes of the roster that are present, which is fixed if it is not yet; waits for enough of them.

        Raises:
            SettingsError: so many are gone for good that no round can have enough.
        """
        if self._roster.fixed is None:
            present = super().members()
            self._roster.fix(self._federation.name(node) for node in present)
            self._on_roster()
        self.quorum = self._roster.quorum
        return super().members()

    def look(self) -> Members:
        """Return who of the run's secure sum is present or away at this moment.

        Raises:
            SettingsError: so many are gone for good that no round can have enough.
        """
        self._name_peers()
        members = super().look()
        self._federation.note_revoked(self._roster)
        self._roster.require_enough()
        undecided = members.undecided if self._roster.fixed is None else []
        present = self._able(members.present)
        if len(present) >= self._roster.quorum:  # else a refusal would cost the others a round that is lost
            present += [node for node in members.present if self._roster.may_take_it(self._federation.name(node))]
        return Members(sorted(present), self._able(members.away), undecided)

    def note_refusal(self, node: int, status: Status) -> None:
        """Take note of a node that takes no further part in the secure sum, or no longer knows the run."""
        if status is Status.REFUSED_ROSTER:
            self._roster.note_refused(self._federation.name(node))
        elif status in FOR_GOOD:
            self._roster.note_gone(self._federation.name(node), status.name.lower())
        super().note_refusal(node, status)

    def _able(self, nodes: list[int]) -> list[int]:
        return [node for node in nodes if self._roster.has(self._federation.name(node))]

    def _name_peers(self) -> None:
        """Offer the study with the nodes that are enrolled by now."""
        peers = self._federation.peers()
        if peers != self._peers and self._roster.fixed is None:
            self._peers, self._content = peers, encode_offer(replace(self._offer, peers=peers))

    def _status(self, node: int, answer: OfferReply) -> Status:
        name = self._federation.name(node)
        if answer.status in FOR_GOOD:
            self._roster.note_gone(name, answer.status.name.lower())
        if answer.status is not Status.APPROVED:
            return answer.status
        reason = self._roster.take(Enrolled(name, self._federation.keys().get(name, b"")), answer.entry)
        if reason:
            log.warning("%s cannot join the secure sum: %s", name or f"Node {node}", reason)
            return Status.REFUSED_ROSTER
        return Status.APPROVED

    def _with_late_ones(self, by_status: dict[str, list[int]]) -> dict[str, list[int]]:
        approved, roster = by_status.get("approved", []), self._roster
        late = [node for node in approved if roster.fixed and self._federation.name(node) not in roster.fixed.positions]
        if not late:
            return by_status
        return by_status | {"approved": [node for node in approved if node not in late], TOO_LATE: late}


def _der(public_key: str) -> bytes:
    try:
        key = load_pem_public_key(public_key.encode())
    except ValueError:
        return b""
    return certificate_key_bytes(key) if isinstance(key, ec.EllipticCurvePublicKey) else b""
