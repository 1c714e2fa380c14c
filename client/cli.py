"""`fedvault-node`: what a node's operator sees and decides."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.command_line import VERBOSE, run_command

if TYPE_CHECKING:
    from client.vault.desk import Desk

cli = typer.Typer(
    help="A client node: its policy, its ledger, and an operator's yes or no to studies. Training over a network is "
    "not part of it yet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Config = Annotated[Path, typer.Option("--config", help="The node's settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StudyFile = Annotated[Path, typer.Argument(help="The study's TOML file.")]
Dataset = Annotated[str, typer.Option("--dataset", help="A dataset of node.toml.")]
NODE_TOML = Path("node.toml")


@cli.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False) -> None:
    os.environ[VERBOSE] = "1" if verbose else ""


@cli.command()
def init(config: Config = NODE_TOML) -> None:
    """Write a node.toml to fill in, and open an empty ledger beside it. Changes nothing that is there."""
    from client.settings import TEMPLATE

    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(TEMPLATE)
    with _desk(config).ledger() as ledger:
        typer.echo(f"{config}: fill in your datasets. The ledger has {ledger.height} rows.")


@cli.command()
def show(study: StudyFile, dataset: Dataset, config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """What a study asks of a dataset: what leaves, what it costs, what the policy says."""
    from shared.study import load_study

    desk = _desk(config)
    with desk.ledger() as ledger:
        question = desk.ask(ledger, load_study(study), dataset)
    if as_json:
        typer.echo(json.dumps(asdict(question), indent=1))
        return
    typer.echo(question.in_words)
    for objection in question.objections:
        typer.echo(f"The policy says no: {objection}.")
    if question.epsilon_after > question.epsilon_limit:
        typer.echo("The budget says no: it does not fit.")


@cli.command()
def approve(
    study: StudyFile,
    dataset: Dataset,
    run: Annotated[str, typer.Option("--run", help="The study run that is approved; a second run asks again.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Say yes to one study run: its whole worst case is earmarked in the ledger."""
    from shared.study import load_study

    desk, declared = _desk(config), load_study(study)
    with desk.ledger() as ledger:
        typer.echo(desk.ask(ledger, declared, dataset).in_words)
        if not yes:
            typer.confirm("Approve?", abort=True)
        desk.approve(ledger, declared, dataset, run)
        typer.echo(f"Approved. Row {ledger.height} of the ledger, {ledger.head[:16]}.")


@cli.command()
def ledger(
    verify: Annotated[bool, typer.Option("--verify", help="Only say whether it is whole.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write every row to a JSON-lines file.")] = None,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Spent, earmarked and left, by dataset. Reading it verifies every row."""
    with _desk(config).ledger() as opened:
        books = opened.books
        accounts = {
            name: {
                "spent": books.spent(name),
                "promised": books.promised(name),
                "limit": books.limit(name).epsilon,
                "delta": books.limit(name).delta,
                "shares_records_with": sorted(books.account(name) - {name}),
                "withdrawn": bool(books.account(name) & books.withdrawn),
            }
            for name in books.limits
        }
        found = {"rows": opened.height, "head": opened.head, "datasets": accounts}
        if export is not None:
            export.write_text("".join(json.dumps(row) + "\n" for row in opened.rows()))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    elif verify:
        typer.echo(f"Whole: {found['rows']} rows, head {found['head']}.")
    else:
        _print_accounts(accounts)


@cli.command()
def withdraw(
    dataset: Annotated[str, typer.Argument(help="A dataset of the ledger.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """A tombstone: no further rounds on these records, in any dataset. What was released stays released."""
    with _desk(config).ledger() as opened:
        if not yes:
            typer.confirm(f"No study will ever train on {dataset!r} again. Withdraw?", abort=True)
        opened.withdraw(dataset)
        account = opened.books.account(dataset)
        runs = sorted(name for name, run in opened.books.runs.items() if run.dataset in account and run.attempts)
    typer.echo(f"Withdrawn. Runs that trained on its records: {', '.join(runs) or 'none'}.")
    typer.echo("Nothing is unlearned by this.")


def main() -> None:
    """Entry point."""
    run_command(cli)


def _desk(config: Path) -> "Desk":
    from client.vault.desk import Desk
    from client.settings import load_node

    return Desk(load_node(config), config.parent)


def _print_accounts(accounts: dict[str, dict[str, object]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for header in ("dataset", "spent", "promised", "limit", "δ", "shares records with"):
        table.add_column(header)
    for name, account in accounts.items():
        shown = f"{escape(name)} (withdrawn)" if account["withdrawn"] else escape(name)
        figures = [f"{account['spent']:.3f}", f"{account['promised']:.3f}", f"{account['limit']:g}"]
        shared = ", ".join(map(str, account["shares_records_with"]))  # type: ignore[call-overload]
        table.add_row(shown, *figures, f"{account['delta']:g}", escape(shared) or "-")
    Console().print(table)
