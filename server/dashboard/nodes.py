"""The nodes of a federation as rows: who is present, who is late, who is away and since when. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from server.flower.control import FlowerNode
from server.run_store.values import Node
from shared.evidence.figures import moment

Standing = Literal["late", "away", "present", "invited", "revoked", "unknown"]
TONES: Mapping[Standing, str] = {"present": "good", "late": "warn", "away": "bad", "revoked": "plain"}
ORDER: Sequence[Standing] = ("late", "away", "unknown", "present", "invited", "revoked")
"""Whoever needs an eye first."""


class NodeLine(NamedTuple):
    """One node."""

    name: str
    standing: Standing
    words: str
    since: str
    """When it was invited, enrolled or revoked."""

    @property
    def tone(self) -> str:
        """Return how its standing stands out."""
        return TONES.get(self.standing, "plain")


def node_lines(nodes: Sequence[Node], seen: Sequence[FlowerNode] | None, sits_out: Mapping[str, int]) -> list[NodeLine]:
    """Return a line for each node, those first that need an eye.

    Args:
        nodes: every node that was ever invited.
        seen: nodes as Flower sees them; None if it does not answer.
        sits_out: nodes that kept missing rounds, each with the last round that it sits out.
    """
    by_number = None if seen is None else {node.node_id: node for node in seen}
    lines = [_line(node, by_number, sits_out) for node in nodes]
    return sorted(lines, key=lambda line: (ORDER.index(line.standing), line.name))


def counted(lines: Sequence[NodeLine]) -> dict[Standing, int]:
    """Return how many nodes there are of each standing, in order."""
    return {standing: count for standing in ORDER if (count := sum(line.standing == standing for line in lines))}


def _line(node: Node, seen: Mapping[int, FlowerNode] | None, sits_out: Mapping[str, int]) -> NodeLine:
    if node.revoked:
        return NodeLine(node.name, "revoked", "shut out", moment(node.revoked))
    if not node.enrolled:
        return NodeLine(node.name, "invited", "its invite is not used yet", moment(node.invited))
    since = moment(node.enrolled)
    if seen is None:
        return NodeLine(node.name, "unknown", "Flower does not answer, so nobody knows", since)
    known = seen.get(node.node_id)
    if known is None or not known.present:
        return NodeLine(node.name, "away", _away(known), since)
    if node.name in sits_out:
        until = f"up to round {sits_out[node.name]} it is asked only if there is no quorum without it"
        return NodeLine(node.name, "late", f"kept missing rounds: {until}", since)
    return NodeLine(node.name, "present", "", since)


def _away(known: FlowerNode | None) -> str:
    if known is None or known.heard_until <= 0:
        return "has not come yet"
    return f"since {datetime.fromtimestamp(known.heard_until, UTC):%Y-%m-%d %H:%M}"
