"""Studies on offer: seeing what one asks of a dataset, and saying yes or no."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from client.cli.options import (
    NODE_TOML,
    AsJson,
    By,
    Config,
    DatasetName,
    Note,
    StudyName,
    chosen_dataset,
    declared_study,
    open_node,
)
from shared.errors import SettingsError
from shared.printable import one_line
from shared.terminal import saying


def studies(config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """Studies that the server showed this node, and how you stand to them."""
    from client.operator_service.studies import study_rows
    from shared.command_line import print_table

    node = open_node(config)
    rows = study_rows(node)
    for damage in node.offers.damaged():
        typer.echo(f"{damage} {damage.hint}", err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        print_table([{name: value for name, value in row.items() if name != "decisions"} for row in rows])
        for row in rows:
            if row["decisions"]:
                typer.echo(f"{row['run']}: {row['decisions']}.")
        if rows:
            typer.echo("best guess: how often a coin toss over whether one unit took part becomes right, at most.")


def register(
    dataset: Annotated[str, typer.Argument(help="A dataset of node.toml.")],
    config: Config = NODE_TOML,
) -> None:
    """Enter a dataset's records before any study: who shares a budget is settled now. Needed by within-policy."""
    from client.vault.review.registering import read_registration
    from client.vault.review.registering import register as enter

    node = open_node(config)
    declared = node.dataset(dataset)
    with saying(f"Reading the records of {dataset!r}"):
        registration = read_registration(node, declared)
    with node.open_ledger() as ledger:
        enter(node, ledger, declared, registration)
        others = sorted(ledger.state.account(dataset) - {dataset})
        typer.echo(
            f"Registered. Row {ledger.height} of the ledger. Shares records with: {', '.join(others) or 'none'}."
        )


def show(study: StudyName, dataset: DatasetName = None, config: Config = NODE_TOML, as_json: AsJson = False) -> None:
    """Show what a study asks of a dataset: what leaves, what it costs, what the policy says."""
    with saying("Loading what reads models and records") as activity:
        from client.operator_service.studies import sum_lines
        from client.vault.review.review import StudyReview

        node = open_node(config)
        (declared, run), review = declared_study(node, study), StudyReview(node, activity.now)
        reviewed = review.review(declared, chosen_dataset(node, dataset))
        summary = reviewed.summary
        activity.now("Comparing ways to send an update")
        ways = review.ways_to_send(declared)
        decisions = node.ledger_state().decisions.get(run or "", [])
        sums = sum_lines(node, declared, run, reviewed.rules)
    if as_json:
        plain = {"bytes_by_way": ways, "decisions": [asdict(one) for one in decisions], "secure_sum": sums}
        typer.echo(json.dumps(asdict(summary) | plain, indent=1))
        return
    typer.echo("\n".join([summary.in_words, *sums]))
    typer.echo("Bytes that a node sends in a round, this way and others:")
    for way, size in ways.items():
        chosen = "  <- this study" if way.endswith(f" {summary.wire}") else ""
        typer.echo(f"  {way:<29}{size:>14,}{chosen}")
    if decisions:
        typer.echo(f"What was said to this run: {'; '.join(one.in_words for one in decisions)}.")
    for objection in summary.objections:
        typer.echo(f"The policy says no: {one_line(objection)}.")
    if not summary.fits:
        typer.echo("The budget says no: it does not fit.")


def approve(
    study: StudyName,
    dataset: DatasetName = None,
    run: Annotated[str | None, typer.Option("--run", help="With a file: the run that is approved.")] = None,
    by: By = "",
    note: Note = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Say yes to one study run: its worst case is earmarked, the records are kept as they are now."""
    from client.vault.ledger.rows import decided

    words = decided(by, note)
    with saying("Loading what reads models and records") as activity:
        from client.operator_service.studies import sum_lines
        from client.vault.review.review import StudyReview

        node = open_node(config)
        declared, offered = declared_study(node, study)
        named = run or offered
        if named is None:
            raise SettingsError("Expected --run with a study file.", hint="Or name a run of `fedvault-node studies`.")
        review = StudyReview(node, activity.now)
        reviewed = review.review(declared, chosen_dataset(node, dataset))
    typer.echo("\n".join([reviewed.summary.in_words, *sum_lines(node, declared, offered, reviewed.rules)]))
    if not yes:
        # the vault continues meanwhile; whether the study still fits is checked again
        typer.confirm("Approve?", abort=True)
    with node.open_ledger() as ledger:
        review.approve(ledger, reviewed, named, words)
        typer.echo(f"Approved. Row {ledger.height} of the ledger, {ledger.head[:16]}.")


def reject(
    run: Annotated[str, typer.Argument(help="A run of `studies`, or the beginning of its name.")],
    by: By = "",
    note: Note = "",
    config: Config = NODE_TOML,
) -> None:
    """Say no to a study run, or end one that was approved: what it earmarked and did not use is given back."""
    from client.operator.forgetting import forget_ended
    from client.vault.ledger.rows import decided
    from client.vault.review.review import StudyReview

    node, words = open_node(config), decided(by, note)
    with node.open_ledger() as ledger:
        name = StudyReview(node).reject(ledger, run, words)
        history = "; ".join(decision.in_words for decision in ledger.state.decisions[name])
    with saying("Waiting for the vault to forget the run's records"):
        forget_ended(node)
    typer.echo(f"{name} is rejected. What was said to it: {history}.")


def resume(
    run: Annotated[str, typer.Argument(help="A run of `studies`, or the beginning of its name.")],
    by: By = "",
    note: Note = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = NODE_TOML,
) -> None:
    """Let a run continue whose rounds failed or were lost, once you have looked at the log and mended the cause."""
    from client.vault.ledger.rows import decided
    from client.vault.review.resuming import resume as enter
    from client.vault.review.resuming import stalled

    node, words = open_node(config), decided(by, note)
    with node.open_ledger() as ledger:
        name = run if run in ledger.state.runs else node.offers.find(run).run
        rounds = stalled(ledger.state, name)
    typer.echo(
        f"Rounds of {name} that failed or were lost: {rounds}. `fedvault-node logs` tells why. They stay paid for."
    )
    if not yes:
        typer.confirm("Is the cause mended, so that it may continue?", abort=True)
    with node.open_ledger() as ledger:
        typer.echo(enter(ledger, name, rounds, words))
