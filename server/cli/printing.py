"""Prints rows, facts and a run's events on a terminal, or as JSON."""

import json
from typing import TYPE_CHECKING, Any

import typer

from server.operator.round_text import Names, event_line
from shared.command_line import print_table

if TYPE_CHECKING:
    from server.private_evaluation.results import RunEvaluations
    from server.run_store.values import Event


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table or as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        print_table(rows)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print named values, one a line, or as JSON."""
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        print_table([{"": name.replace("_", " "), " ": str(value)} for name, value in facts.items()])


def print_event(event: "Event", names: Names, as_json: bool) -> None:
    """Print an event as one line of text or of JSON."""
    typer.echo(json.dumps(vars(event)) if as_json else event_line(event, names))


def print_evaluations(evaluations: "RunEvaluations", last: int) -> None:
    """Print who answered every private evaluation of a run, and what that of the adapter which is handed out says.

    Args:
        evaluations: of the run.
        last: its last finished round.
    """
    from shared.private_evaluation.wording import LEGEND, choice_lines, headline, left_out, rows

    for one in evaluations.all:
        typer.echo(headline(one))
    shown, choice = evaluations.of_adapter, evaluations.choice
    for line in choice_lines(choice, last) if choice else ():
        typer.echo(line)
    if shown is not None:
        if shown is not evaluations.all[-1]:
            typer.echo(f"After round {shown.number}:")
        print_table(rows(shown.estimates))
        for line in filter(None, (left_out(shown.estimates), LEGEND)):
            typer.echo(line)
