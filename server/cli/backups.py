"""Commands about backups: backup, restore."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import HOME, HomeOption
from server.settings import Home
from shared.terminal import saying


def backup(
    file: Annotated[Path, typer.Argument(help="A new .tar.gz file; holds the authority's key.")],
    home: HomeOption = HOME,
) -> None:
    """Back up settings, keys, run store and checkpoints, while the server runs or not."""
    from server.backup import back_up

    with saying("Copying settings, keys, run store and checkpoints"):
        back_up(Home(home), file)
    typer.echo(f"{file}: keep it private, whoever has it can be this server.")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")],
    database: Annotated[
        str | None, typer.Option("--database", help="Keep the run store in this database; '' is a file in the folder.")
    ] = None,
    home: HomeOption = HOME,
) -> None:
    """Make a server's folder again from a backup; it must be empty or not there."""
    from server.backup import restore as restore_backup

    with saying("Reading the backup"):
        made = restore_backup(Home(home), file, database=database)
    typer.echo(
        f"{home}: the server as it was on {made[:16].replace('T', ' ')} UTC. The earlier one must not run any more."
    )
    typer.echo("Next: fedvault-server start")
