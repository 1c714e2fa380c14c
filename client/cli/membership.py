"""Setting a node up, joining a federation, leaving it."""

from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, Config, node_folders, open_node


def init(config: Config = NODE_TOML) -> None:
    """Write a node.toml to fill in, and open an empty ledger beside it. Changes nothing that is there."""
    from client.settings import TEMPLATE
    from shared.files import private_folder

    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(TEMPLATE)
    node = open_node(config)
    private_folder(node.folders.home)
    with node.open_ledger() as ledger:
        typer.echo(f"{config}: fill in your datasets. The ledger has {ledger.height} rows.")


def join(
    invite: Annotated[Path, typer.Argument(help="The file you got from the server's operator; - reads it as input.")],
    config: Config = NODE_TOML,
) -> None:
    """Join a federation: make this node's key, have it signed. The key never leaves this machine."""
    from client.link import membership
    from client.settings import load_node
    from shared.protocol.invite import read_invite
    from shared.terminal import saying

    settings = load_node(config)
    folder, base = node_folders(config).link, config.resolve().parent
    with saying("Asking the server to sign this node's key"):
        member = membership.join(read_invite(invite), folder, settings.server, base)
    typer.echo(f"Joined {member.server} as {member.name}. The invite is used up: delete it. Next: fedvault-node doctor")


def leave(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, config: Config = NODE_TOML) -> None:
    """Leave the federation: its key and certificate are deleted, open runs are closed. Ledger and data stay."""
    from client.deployment import deployment
    from client.link import membership
    from shared.processes import running
    from shared.terminal import saying

    places = node_folders(config)
    if membership.left_over(places.link):
        membership.leave(places.link)
        typer.echo("Removed the key of a join that did not come to its end.")
        return
    member = membership.membership(places.link)
    if not yes:
        typer.confirm(f"Coming back to {member.server} takes a new invite. Leave?", abort=True)
    with saying("Waiting for vault and link to end") as activity:
        running.stop(places.running)
        activity.now("Closing the open runs")
        if deployment().has_vault:
            _close_open_runs(config)
        membership.leave(places.link)
    typer.echo(f"Left {member.server}. What was released stays released.")


def _close_open_runs(config: Path) -> None:
    from client.operator.forgetting import forget_ended
    from client.vault.review.review import StudyReview

    node = open_node(config)
    with node.open_ledger() as ledger:
        for run in [name for name, run in ledger.state.runs.items() if not run.closed]:
            StudyReview(node).end(ledger, run)
    forget_ended(node)
