"""The other nodes of secure sums: their keys' fingerprints, and pinning them."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, open_node
from shared.errors import SettingsError

if TYPE_CHECKING:
    from client.vault.review.node_files import NodeFiles


def peers(
    run: Annotated[str | None, typer.Argument(help="A run of `studies`; default: all of them.")] = None,
    pin: Annotated[list[str] | None, typer.Option("--pin", help="Pin the key of this peer; may be repeated.")] = None,
    pin_all: Annotated[bool, typer.Option("--pin-all", help="Pin the keys of all that are shown.")] = False,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Show the other nodes of secure sums with their keys; pin those that you compared with their operators."""
    from client.vault.review.peers import as_plain, known_peers
    from client.vault.review.peers import pin as write_pins
    from shared.command_line import print_table

    node = open_node(config)
    shown = known_peers(node, run)
    names = sorted({peer.name for peer in shown if not peer.pinned}) if pin_all else list(pin or ())
    if pin and pin_all:
        raise SettingsError("Expected --pin or --pin-all, got both.")
    if names:
        write_pins(config, names, shown)
        node = open_node(config)
        shown = known_peers(node, run)
    if as_json:
        typer.echo(json.dumps({"own_key_sha256": _own_fingerprint(node), "peers": as_plain(shown)}, indent=1))
        return
    print_table(
        [
            {"peer": peer.name, "pinned": "yes" if peer.pinned else "no", "owner": peer.owner, "key": peer.key_sha256}
            for peer in shown
        ]
    )
    if not shown:
        typer.echo("The server has named no other nodes: it does so with a study that has a secure sum.")
    if (own := _own_fingerprint(node)) is not None:
        typer.echo(f"This node's own key, for the others to compare: {own}")
    if names:
        typer.echo(f"Pinned in {config}: {', '.join(names)}. A pin is worth what the comparison was worth.")


def _own_fingerprint(node: "NodeFiles") -> str | None:
    """Return what other operators pin of this node; None where its key is not, as in the vault's container."""
    from client.link.membership import membership
    from client.link.roster_signer import RosterSigner

    with suppress(SettingsError, OSError):
        member = membership(node.folders.link)
        return RosterSigner(member.name, member.key()).fingerprint
    return None
