"""Every command of `fedvault-node`, in the order in which `--help` lists them."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from client.cli.checks import doctor, models
from client.cli.explanations import explain
from client.cli.ledger import backup, ledger, withdraw
from client.cli.membership import init, join, leave
from client.cli.pages import dashboard
from client.cli.peers import peers
from client.cli.personal import personalise
from client.cli.processes import link, logs, start, status, stop, vault
from client.cli.receipts import receipt, sign, verify
from client.cli.reports import history, report
from client.cli.studies import approve, register, reject, resume, show, studies
from shared.command_line import VERBOSE, run_command
from shared.environment import OFFLINE
from shared.processes.core_dumps import forbid_core_dumps

cli = typer.Typer(
    help="A client node: its data stays here. Begin with: init, then join, then doctor, then start.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    init,
    join,
    leave,
    doctor,
    start,
    stop,
    status,
    dashboard,
    models,
    logs,
    studies,
    register,
    show,
    approve,
    reject,
    resume,
    peers,
    report,
    history,
    explain,
    personalise,
    receipt,
    sign,
    verify,
    backup,
    vault,
    link,
    ledger,
    withdraw,
)
HIDDEN = (vault, link)
"""Started by `start`, or as the one process of a container."""
for command in COMMANDS:
    cli.command(hidden=command in HIDDEN)(command)


@cli.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False) -> None:
    os.environ |= OFFLINE | {VERBOSE: "1" if verbose else ""}


def main() -> None:
    """Run the command that the arguments name."""
    forbid_core_dumps()
    run_command(cli)
