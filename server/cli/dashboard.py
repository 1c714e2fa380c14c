"""The command that opens the server's page."""

from typing import Annotated

import typer

from server.cli.options import HOME, HomeOption, open_store
from server.settings import Home
from shared.terminal import saying


def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine; 0 takes one that is free.")] = 0,
    home: HomeOption = HOME,
) -> None:
    """Serve the server's page on this machine: who is there, the run live, cost, queue, downloads, actions.

    It prints an address that opens the page once. Whoever has a terminal here can do as much with commands.
    """
    folder = Home(home.resolve())
    with open_store(folder) as store:
        with saying("Loading what reads runs"):
            from server.pages.site import ServerSite, server_pages
            from server.pages.watch import Watch
            from shared.web.process import invitation, serve

        pages = server_pages(folder.settings().hosts[0])
        site = ServerSite(Watch(folder, store), pages)
        serve(site.routes(), pages, say=lambda address: typer.echo(invitation(address)), port=port)
