"""Prints rows, facts and a run's events on a terminal, or as JSON."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from server.operator.round_text import Names, event_line
from shared.command_line import print_table

if TYPE_CHECKING:
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


def print_evaluations(evaluations: Sequence[dict[str, Any]]) -> None:
    """Print who answered every private evaluation of a run, and what the last one that was answered says."""
    from shared.private_evaluation.estimates import Evaluated
    from shared.private_evaluation.wording import LEGEND, headline, left_out, rows

    evaluated = [Evaluated.model_validate(one) for one in evaluations]
    for one in evaluated:
        typer.echo(headline(one))
    answered = [one for one in evaluated if one.estimates]
    if answered:
        print_table(rows(answered[-1].estimates))
        for line in filter(None, (left_out(answered[-1].estimates), LEGEND)):
            typer.echo(line)
