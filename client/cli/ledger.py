"""The ledger's report and recovery, withdrawing a dataset, backups."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, open_node
from shared.terminal import saying


def backup(
    archive: Annotated[Path, typer.Argument(help="A new .tar.gz file; holds private data and the node's key.")],
    config: Config = NODE_TOML,
) -> None:
    """Back up ledger, keys and snapshots. Restoring an old one is noticed: the ledger's second copy is not in it."""
    from client.operator.backup import back_up

    with saying("Copying ledger, keys and snapshots"):
        back_up(open_node(config), archive)
    typer.echo(f"{archive}: keep it as you keep the data itself.")


def ledger(
    verify: Annotated[bool, typer.Option("--verify", help="Only say whether it is whole.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write every row that can be read to a JSON-lines file.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Go on without what is missing; lowers nothing.")] = False,
    accept_date: Annotated[
        bool, typer.Option("--accept-date", help="The last row was dated by a clock that ran ahead; today's is right.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Spent, earmarked and left, by dataset, and how many more rounds of each study fit. Verifies every row."""
    from client.operator import ledger_report, ledger_text

    node = open_node(config)
    if export is not None:
        typer.echo(f"{export}: {ledger_report.export(node, export)} rows.", err=True)
    if accept:
        typer.echo(ledger_report.consequences(node), err=True)
        if not yes:
            typer.confirm("Go on without what is missing?", abort=True, err=True)
        ledger_report.recover(node)
    if accept_date:
        ledger_report.accept_date(node)
    with saying("Verifying every row of the ledger"):
        report = ledger_report.figures(node)
    if report["unproven"]:
        typer.echo(f"A question for you: {report['unproven']}", err=True)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    elif verify:
        typer.echo(f"Whole: {report['rows']} rows, head {report['head']}.")
    else:
        ledger_text.show(report)


def withdraw(
    dataset: Annotated[str, typer.Argument(help="A dataset of the ledger.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """A tombstone: no further rounds on these records, in any dataset. What was released stays released."""
    from client.operator import withdrawal
    from shared.command_line import print_table

    if not yes:
        typer.confirm(f"No study will ever train on {dataset!r} again. Withdraw?", abort=True)
    with saying("Withdrawing, and waiting for the vault to forget the records"):
        descendants = withdrawal.withdraw(open_node(config), dataset)
    typer.echo("Withdrawn. Snapshots and cached activations are deleted. Runs whose adapters descend from its records:")
    print_table([{name.replace("_", " "): value for name, value in asdict(run).items()} for run in descendants])
    typer.echo("Nothing is unlearned by this.")
