"""Options and arguments that several commands take, and the run store that most of them open."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.settings import Home

if TYPE_CHECKING:
    from server.run_store.store import Store

HomeOption = Annotated[
    Path, typer.Option("--home", help="The server's folder.", envvar="FEDVAULT_SERVER_HOME", show_envvar=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(help="A run, or the beginning of its name. `runs` lists them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
HOME, STDOUT = Path("federation"), Path("-")


def confirm_loss(loss: str, question: str, *, yes: bool) -> None:
    """Say on stderr what would be lost, and go on only if a person says yes, unless `yes` said so beforehand."""
    typer.echo(loss, err=True)
    if not yes:
        typer.confirm(question, abort=True, err=True)


def open_store(home: Home) -> "Store":
    """Open the run store of a server's folder.

    Raises:
        AccessError: the folder is another user's.
        SettingsError: it is not there.
        RunError: the database does not answer.
    """
    from server.run_store.store import Store

    return Store(home.database())
