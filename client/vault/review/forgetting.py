"""Deleting a node's own copies of the records of runs that the ledger has ended, and its keys of their secure sums."""

import shutil
import time

from client.vault.ledger.outbox import KEPT_S, NEWEST_KEPT_S
from client.vault.ledger.state import LedgerState
from client.vault.review.node_files import NodeFiles


def forget_left_over(node: NodeFiles, state: LedgerState, now: float | None = None) -> None:
    """Delete copies of runs that are over and still have some, because a crash came between the row and the files.

    Keys of a secure sum go as well where all rounds and evaluations were asked for, and the last one's sum is opened or
    lost for long, or where nobody has asked for one for three months: a server that gave a run up says so to nobody,
    and who gets at the keys later could open what this node once sent.

    Args:
        node: whose files they are.
        state: of its ledger.
        now: seconds since 1970; None reads the clock.
    """
    if _with_copies(node, state):
        forget_copies(node, state)
    for name, run in state.runs.items():
        idle_s = (time.time() if now is None else now) - node.sums.last_change(name)
        if node.sums.holds(name) and idle_s > (NEWEST_KEPT_S if run.may_go_on else KEPT_S):
            node.sums.forget(name)


def forget_copies(node: NodeFiles, state: LedgerState) -> None:
    """Delete snapshots, secure sum keys and personal adapters of every run that is over, and all cached activations.

    Whose activations a file holds cannot be told any more. Runs that go on compute theirs again; a vault that reads a
    file reads on.
    """
    for run in _with_copies(node, state):
        node.sums.forget(run)
        node.approved.forget(run)
    may_go_on = {node.personal_folder(run) for run in state.runs if not state.is_over(run)}
    for folder in node.folders.personal.glob("*"):  # also what a command that was killed left there
        if folder not in may_go_on:
            shutil.rmtree(folder, ignore_errors=True)
    node.forget_activations()


def _with_copies(node: NodeFiles, state: LedgerState) -> list[str]:
    over = [run for run in state.runs if state.is_over(run)]
    return [
        run for run in over if node.approved.holds(run) or node.sums.holds(run) or node.personal_folder(run).exists()
    ]
