"""Explain a model's answers to records of this node, for its operator's eyes."""

from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import NODE_TOML, AsJson, Config, DatasetName, chosen_dataset, open_node
from shared.explanations.options import Count
from shared.files import named_after


def explain(
    adapter: Annotated[Path, typer.Argument(help="A finished adapter, as the server's operator hands it out.")],
    dataset: DatasetName = None,
    count: Count = 5,
    out: Annotated[Path | None, typer.Option(help="Folder of the page. Default: explained-DATASET.")] = None,
    config: Config = NODE_TOML,
    as_json: AsJson = False,
) -> None:
    """Show what a finished model's answers rest on, for records of this node. For your eyes only: nothing is sent.

    The page holds the records themselves. Nothing of it enters the ledger, as nothing leaves.

    Example: fedvault-node explain adapter --dataset ward --rows 10
    """
    from shared.explanations.command import explain_table

    chosen = chosen_dataset(open_node(config), dataset)
    columns = [f"{name}={column}" for name, column in chosen.policy.columns.items()]
    folder = out or Path(f"explained-{named_after(chosen.name)}")
    typer.echo(f"{folder} will hold records of {chosen.name}: keep it where they may lie.", err=True)
    explain_table(adapter, chosen.source, columns, count, folder, typer.echo, in_json=as_json)
