"""Commands about nodes: invite, nodes, revoke."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import HOME, STDOUT, AsJson, HomeOption, Yes, confirm_loss, open_store
from server.cli.printing import print_rows
from server.settings import Home


def invite(
    name: Annotated[str, typer.Argument(help="What you will call the node.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write it, - to print it; default NAME.invite.json.")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="For an enrolled node whose certificate ended: it keeps key and ledger.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=90, help="Days until it expires.")] = 7,
    home: HomeOption = HOME,
) -> None:
    """Write an invite: one file for one organisation, good for one enrolment. Hand it over privately."""
    from server.gateway import enrolment
    from server.operator import actions

    folder, path = Home(home), out or Path(enrolment.invite_file(name))
    with open_store(folder) as store:
        operator = actions.Operator(actions.this_user())
        created = actions.invite(folder, store, name, operator, renew=renew, days=days)
    if path == STDOUT:
        typer.echo(created.as_json(), nl=False)
        return
    enrolment.write_invite(created, path)
    typer.echo(f"{path}: for {name}, until {created.expires:%Y-%m-%d %H:%M} UTC. There: fedvault-node join {path.name}")


def list_nodes(home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """List the nodes: invited, enrolled or revoked, and whether each is present."""
    from server.certificate_authority import node_certificate_ends
    from server.operator.facts import present_nodes

    folder = Home(home)
    present = present_nodes(folder)
    with open_store(folder) as store:
        rows = [
            {
                "name": node.name,
                "status": node.status,
                "present": None if present is None else node.node_id in present,
                "since": (node.revoked or node.enrolled or node.invited)[:19],
                "certificate_ends": None if end is None else f"{end:%Y-%m-%d}",
            }
            for node in store.nodes()
            for end in [node_certificate_ends(folder.keys, node.name)]
        ]
    print_rows(rows, as_json)


def revoke(
    name: Annotated[str, typer.Argument(help="A node; with --operator an operator.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="All certificates of an operator; open pages end within a second.")
    ] = False,
    yes: Yes = False,
    home: HomeOption = HOME,
) -> None:
    """Shut a node out, from its next request on; or an operator."""
    from server.operator import actions, remote_operators

    folder = Home(home)
    with open_store(folder) as store:
        if operator:
            remote_operators.revoke_certificates(store, name, actions.Operator(actions.this_user()))
            typer.echo(f"{name} is shut out of the page.")
            return
        for loss in actions.lost_by_revoking(store, name):
            confirm_loss(loss, f"Shut {name} out?", yes=yes)
        actions.revoke(folder, store, name, actions.Operator(actions.this_user()))
    typer.echo(f"{name} is shut out.")
