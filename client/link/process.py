"""The link process: reads its settings, finds the vault's socket, and stays connected until it is told to stop."""

import logging
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

from client.deployment import Deployment, deployment
from client.link.loop import Link
from client.link.membership import Membership, certificate_in_words, has_joined, membership
from client.link.roster_signer import RosterSigner
from client.link.vault_client import VaultClient
from client.settings import NodeSettings, folders, load_node
from shared.errors import FedVaultError

log = logging.getLogger(__name__)
RENEW_EVERY_S = 6 * 3600.0
JOINED_EVERY_S = 1.0


def serve(config: Path) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SettingsError: node.toml is not valid, or this node has not joined and is no container that can wait for it.
    """
    settings, stop = load_node(config), threading.Event()
    places, base = folders(config, settings), config.resolve().parent
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if deployment() is Deployment.LINK:
        _wait_for_join(places.link, stop)
        if stop.is_set():
            return
    member = membership(places.link)
    threading.Thread(target=_keep_renewed, args=(member, settings, base, stop), daemon=True).start()
    vault = VaultClient(places.socket, signer=RosterSigner(member.name, member.key()))
    link = Link(
        lambda: member.connect(settings.server, base),
        vault,
        places.link,
        server=member.server,
        node_id=member.node_id,
        stop=stop,
    )
    link.run()
    vault.close()


def _wait_for_join(folder: Path, stop: threading.Event) -> None:
    """Wait until this node is a member: `join` is typed in the link's container, so that has to be there before."""
    if not has_joined(folder):
        log.info("This node is no member of a federation yet. It waits for: fedvault-node join INVITE")
    while not has_joined(folder) and not stop.wait(JOINED_EVERY_S):
        pass


def _keep_renewed(member: Membership, settings: NodeSettings, base: Path, stop: threading.Event) -> None:
    while True:
        try:
            if member.renew_if_due(settings.server, base):
                log.info("The certificate was renewed; it is used with the next connection.")
        except (FedVaultError, OSError, ValueError) as error:
            # whatever the server answers: the next try may find it in a better state
            log.warning("%s It could not be renewed: %s", _certificate_of(member), error)
        if stop.wait(RENEW_EVERY_S):
            return


def _certificate_of(member: Membership) -> str:
    """Return how long the certificate lasts, in words; one that is damaged does not say."""
    try:
        return certificate_in_words(member.expires, datetime.now(UTC))
    except (OSError, ValueError):
        return f"{member.certificate_path} cannot be read as a certificate."
