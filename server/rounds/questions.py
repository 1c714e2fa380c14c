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
        self._open, self._superseded = dict[str, int](), set[str]()

    def ask(self, nodes: Collection[int]) -> list[int]:
        """Ask these nodes; returns those to whom Flower takes no message just now."""
        ids = list(self._grid.push_messages([self._message(node) for node in nodes])) if nodes else []
        self._open |= {message_id: node for message_id, node in zip(ids, nodes, strict=True) if message_id}
        return [node for message_id, node in zip(ids, nodes, strict=True) if not message_id]

    def replies(self) -> Iterator[tuple[int, Message]]:
        """Yield the replies that have come, each with the node that was asked."""
        if not self._open:
            return
        for reply in self._grid.pull_messages(list(self._open)):
            # an error may come from the server's own address, so a reply is matched to the question, not the sender
            question = reply.metadata.reply_to_message_id
            if question not in self._superseded:
                yield self._open.pop(question, reply.metadata.src_node_id), reply

    def under_way(self, node: int) -> bool:
        """Return whether a node has a question that no reply has come to."""
        return node in self._open.values()

    def close(self, node: int) -> None:
        """Wait no longer for the other replies of a node that has answered: they would be the same bytes again."""
        superseded = {question for question, asked in self._open.items() if asked == node}
        self._superseded |= superseded
        for question in superseded:
            del self._open[question]
