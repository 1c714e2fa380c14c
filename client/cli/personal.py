"""A personal adapter: for this node's own eyes, WITHOUT PRIVACY."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, open_node
from shared.errors import SettingsError
from shared.terminal import saying


def personalise(
    run: Annotated[str, typer.Argument(help="A run of the ledger.")],
    adapter: Annotated[
        Path | None, typer.Option(help="The run's finished adapter, as the server's operator hands it out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder to write the personal adapter to, for PEFT.")] = None,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Train a finished adapter further on this node's records, for your eyes alone. WITHOUT PRIVACY: never share it.

    It stays in the node's home and is never sent. Nothing is charged, as nothing leaves. With --out alone, one that was
    made before is written where you say.

    Example: fedvault-node personalise r-20261128-1a2b3c4d --adapter adapter
    """
    from client.personal.at_node import export_personal, in_words, make_personal

    if adapter is None and out is None:
        raise SettingsError(
            "Expected --adapter with the run's finished adapter, or --out for one that was made before, got neither."
        )
    node = open_node(config)
    with saying("Loading what reads models and records") as activity:
        facts = None if adapter is None else make_personal(node, run, adapter, activity.now)
        facts = export_personal(node, run, out) if out is not None else facts
    assert facts is not None  # noqa: S101 - one of both was asked for
    typer.echo(json.dumps(asdict(facts), indent=1) if as_json else "\n".join(in_words(facts)))
