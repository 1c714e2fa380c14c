"""The list of commands, in the order in which an operator needs them."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from server.cli import backups, dashboard, explanations, federation, nodes, operators, reports, studies, tracking
from shared.command_line import VERBOSE, run_command

cli = typer.Typer(
    help="The coordination server of a federation. Begin with: init, then invite, then start, then run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "init": federation.init,
    "renew": federation.renew,
    "invite": nodes.invite,
    "nodes": nodes.list_nodes,
    "revoke": nodes.revoke,
    "start": federation.start,
    "halt": federation.halt,
    "status": federation.status,
    "dashboard": dashboard.dashboard,
    "operator": operators.operator,
    "operators": operators.list_operators,
    "backup": backups.backup,
    "restore": backups.restore,
    "plan": studies.plan,
    "run": studies.run,
    "runs": studies.runs,
    "show": studies.show,
    "stop": studies.stop,
    "resume": studies.resume,
    "logs": studies.logs,
    "export": studies.export,
    "track": tracking.track,
    "explain": explanations.explain,
    "report": reports.report,
    "verify": reports.verify,
}


@cli.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False) -> None:
    os.environ[VERBOSE] = "1" if verbose else ""


for _name, _command in COMMANDS.items():
    cli.command(_name)(_command)
cli.command("process", hidden=True)(federation.process)


def main() -> None:
    """Run the command that was typed."""
    run_command(cli)
