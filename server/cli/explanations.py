"""Explain a finished run's answers to rows of the operator's own."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import HOME, AsJson, HomeOption, RunName, open_store
from server.settings import Home
from shared.explanations.options import Columns, Count, Rows


def explain(
    run: RunName,
    table: Rows,
    columns: Columns = None,
    count: Count = 5,
    out: Annotated[Path | None, typer.Option(help="Folder of the page. Default: explained-RUN.")] = None,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Show what a finished model's answers rest on, for rows of your own: words, or cells of an image or a spectrogram.

    No node is asked and no budget is spent. The page holds the rows themselves.

    Example: fedvault-server explain r-20261128-1a2b3c4d notes.csv --column text=note
    """
    from server.run_process import adapter_folder
    from shared.errors import SettingsError
    from shared.explanations.command import explain_table

    with open_store(Home(home)) as store:
        chosen = store.run(run)
    if chosen.state != "finished":
        raise SettingsError(f"Expected a finished run, {chosen.id} is {chosen.state} after {chosen.round} rounds.")
    adapter = adapter_folder(Home(home), chosen)
    explain_table(
        adapter, table, columns or [], count, out or Path(f"explained-{chosen.id}"), typer.echo, in_json=as_json
    )
