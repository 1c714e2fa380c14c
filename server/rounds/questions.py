"""The questions of one round that are under way at the nodes, and the replies that come to them."""

from collections.abc import Callable, Collection, Iterator

from flwr.app import Message
from flwr.serverapp import Grid


class Questions:
    """Sends a round's task to nodes, as often as the round says, and matches replies to the node that was asked.

    Args:
        grid: Flower's.
        message: makes the question to a node.
    """

    def __init__(self, grid: Grid, message: Callable[[int], Message]) -> None:
        self._grid, self._message = grid, message
        self._open, self._by_node = dict[str, int](), dict[int, set[str]]()
        self._superseded = set[str]()

    def ask(self, nodes: Collection[int]) -> list[int]:
        """Ask these nodes; returns those to whom Flower takes no message just now."""
        ids = list(self._grid.push_messages([self._message(node) for node in nodes])) if nodes else []
        for question, node in zip(ids, nodes, strict=True):
            if question:
                self._open[question] = node
                self._by_node.setdefault(node, set()).add(question)
        return [node for question, node in zip(ids, nodes, strict=True) if not question]

    def replies(self) -> Iterator[tuple[int, Message]]:
        """Yield the replies that have come, each with the node that was asked."""
        if not self._open:
            return
        for reply in self._grid.pull_messages(list(self._open)):
            # an error may come from the server's own address, so a reply is matched to the question, not the sender
            question = reply.metadata.reply_to_message_id
            if question in self._superseded:
                continue
            node = self._open.pop(question, None)
            if node is not None:
                self._by_node[node].discard(question)
            yield (reply.metadata.src_node_id if node is None else node), reply

    def under_way(self, node: int) -> bool:
        """Return whether a node has a question that no reply has come to."""
        return bool(self._by_node.get(node))

    def close(self, node: int) -> None:
        """Wait no longer for the other replies of a node that has answered: they would be the same bytes again."""
        superseded = self._by_node.pop(node, set())
        self._superseded |= superseded
        for question in superseded:
            del self._open[question]
