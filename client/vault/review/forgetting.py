"""Deleting a node's own copies of the records of runs that the ledger has ended, and its keys of their secure sums."""

from client.vault.ledger.state import LedgerState
from client.vault.review.node_files import NodeFiles


def forget_left_over(node: NodeFiles, state: LedgerState) -> None:
    """Delete copies of runs that are over and still have some, because a crash came between the row and the files."""
    if _with_copies(node, state):
        forget_copies(node, state)


def forget_copies(node: NodeFiles, state: LedgerState) -> None:
    """Delete the snapshots and secure sum keys of every run that is over, and all cached activations.

    Whose activations a file holds cannot be told any more. Runs that go on compute theirs again; a vault that reads a
    file reads on.
    """
    for run in _with_copies(node, state):
        node.sums.forget(run)
        node.approved.forget(run)
    node.forget_activations()


def _with_copies(node: NodeFiles, state: LedgerState) -> list[str]:
    over = [run for run in state.runs if state.is_over(run)]
    return [run for run in over if node.approved.holds(run) or node.sums.holds(run)]
