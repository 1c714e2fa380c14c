"""The process of the operator's page: it finds the vault's second socket and serves until it is told to stop."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from client.dashboard.app import Dashboard
from client.deployment import Deployment, deployment
from client.operator_api.asking import OperatorClient
from client.settings import folders, load_node
from shared.errors import SettingsError
from shared.web import process


def serve(config: Path, *, say: Callable[[str], None], name: str, port: int, allow_decisions: bool) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        config: the node's settings.
        say: is given each sentence for whoever started the page.
        name: of this node; empty: the name of its folder.
        port: 0 takes one that is free.
        allow_decisions: whether studies can be approved and rejected on the page.

    Raises:
        SettingsError: node.toml is not valid, or this half of the node has no page.
        RunError: the port is taken.
    """
    here = deployment()
    if here in (Deployment.VAULT, Deployment.LINK):
        raise SettingsError(
            f"Expected a machine with both halves, or a container of its own, got the {here}'s.",
            hint="docker/compose.yaml has a service for it; its FEDVAULT_DEPLOYMENT is dashboard.",
        )
    places = folders(config, load_node(config))
    with closing(OperatorClient(places.operator_socket)) as vault:
        site = Dashboard(vault, name or config.resolve().parent.name or "node", allow_decisions=allow_decisions)
        inside = here is Deployment.DASHBOARD
        process.serve(site.routes, site.pages, say=say, port=port, container_publishes=inside)
