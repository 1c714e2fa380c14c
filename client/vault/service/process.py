"""The vault process: holds the lock, the records and the model; listens on its socket until it is told to stop."""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from client.vault.ledger.lock import lock_of
from client.vault.review.forgetting import forget_left_over
from client.vault.review.node_files import open_node
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from shared.errors import FedVaultError
from shared.files import private_folder

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
"""A run that was ended without this process being told is forgotten after so long."""


Beside = Callable[[Path], AbstractContextManager[object]]
"""Serves something more in this process, while the vault of a node.toml runs."""


def serve(config: Path, beside: Beside = nullcontext) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        config: the node's settings.
        beside: what else is served here: the operator's socket.

    Raises:
        LedgerError: another vault serves this home, or the ledger cannot be trusted.
        SettingsError: node.toml is not valid.
    """
    node, stop = open_node(config), threading.Event()
    places = node.folders
    private_folder(places.home)
    places.running.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with lock_of(places.home / "vault.lock"):
        with node.open_ledger() as ledger:
            log.info("The ledger is whole: %d rows.", ledger.height)
            forget_left_over(node, ledger.state)
        steps = Steps()
        vault = NodeVault(config, on_step=steps)
        service = VaultService(vault, steps)
        with serving(service, places.socket, group=node.settings.node.socket_group), beside(config):
            log.info("The vault listens on %s.", places.socket)
            while not stop.wait(LOOK_EVERY_S):
                _look(vault, service)
    log.info("The vault stopped.")


def _look(vault: NodeVault, service: VaultService) -> None:
    try:
        vault.forget_ended(service.interrupt, announced=False)
    except (
        FedVaultError,
        OSError,
    ) as error:  # files go while they are looked at: an operator's command deletes them too
        log.error("What the ledger has ended could not be found out: %s", error)
