"""Having the node forget what its operator ended: by the vault if one runs, or else by the files alone."""

from client.link.vault_client import VaultClient
from client.vault.review.forgetting import forget_copies
from client.vault.review.node_files import NodeFiles

FORGET_TIMEOUT_S = 120.0


def forget_ended(node: NodeFiles, *, timeout_s: float = FORGET_TIMEOUT_S) -> None:
    """Delete every copy of the records of ended runs, in the vault's memory and in files; the ledger is not held.

    Raises:
        RunError: a vault runs and has not said in time that it forgot.
        LedgerError: the ledger cannot be read.
    """
    client = VaultClient(node.folders.socket)
    try:
        forgotten = client.forget(timeout_s=timeout_s)
    finally:
        client.close()
    if not forgotten:
        forget_copies(node, node.ledger_state())
