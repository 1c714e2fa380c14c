"""The operator's page in a browser."""

from typing import Annotated

import typer

from client.cli.options import NODE_TOML, Config


def dashboard(
    allow_decisions: Annotated[
        bool, typer.Option("--allow-decisions", help="Studies can be approved and rejected on the page.")
    ] = False,
    port: Annotated[int, typer.Option("--port", help="Where it listens, on this machine alone. Default: any.")] = 0,
    name: Annotated[str, typer.Option("--name", help="What the page calls this node. Default: its folder.")] = "",
    config: Config = NODE_TOML,
) -> None:
    """Open a page about this node for your browser, on this machine alone. It prints an address that opens it once.

    The node has to run. The page asks its vault over a socket that the link never sees. It shows no record's text.

    Example: fedvault-node dashboard --allow-decisions
    """
    from client.dashboard.process import serve

    serve(
        config,
        say=typer.echo,
        name=name,
        port=port,
        allow_decisions=allow_decisions,
    )
