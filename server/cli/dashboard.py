"""The command that opens the server's page."""

from importlib import import_module
from threading import Thread
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
        with saying("Loading the page"):
            from server.dashboard.site import ServerSite, server_pages
            from server.dashboard.watch import Watch
            from shared.web.process import serve

        # meanwhile a person opens the address
        Thread(target=import_module, args=("server.export.run_report",), daemon=True).start()
        pages = server_pages(folder.settings().hosts[0])
        site = ServerSite(Watch(folder, store), pages)
        serve(site.routes(), pages, say=typer.echo, port=port)
