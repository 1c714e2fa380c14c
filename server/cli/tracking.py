"""Send a run's curves to MLflow."""

import json
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import HOME, AsJson, HomeOption, RunName, open_store
from server.settings import Home


def track(
    run: RunName,
    mlflow: Annotated[
        str,
        typer.Option(
            metavar="URI", help="URI of an MLflow server, as in https://mlflow.example.org. Default: server.toml's."
        ),
    ] = "",
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="A file or folder to keep with it, such as its report; may be repeated."),
    ] = None,
    home: HomeOption = HOME,
    as_json: AsJson = False,
) -> None:
    """Send a run's curves to MLflow: settings, metrics by round, ε by node, and the adapter once it is finished.

    Sent again, only what is new is added. With `mlflow` in server.toml, every round is sent as it finishes.

    Example: fedvault-server track r-20261128-1a2b3c4d --mlflow https://mlflow.example.org --also pilot.pdf
    """
    from server.run_process import adapter_folder
    from server.tracking.from_store import curves_of
    from server.tracking.mlflow_server import send
    from shared.errors import SettingsError

    folder = Home(home)
    uri = mlflow or folder.settings().mlflow
    if not uri:
        raise SettingsError(
            "Expected --mlflow with the URI of an MLflow server, got nothing.",
            hint='mlflow = "https://…" in server.toml says it once for all runs.',
        )
    absent = [path for path in also or [] if not path.exists()]
    if absent:
        raise SettingsError(f"Expected files to keep with the run, {absent[0]} is not there.")
    with open_store(folder) as store:
        chosen = store.run(run)
        if also and chosen.state != "finished":
            raise SettingsError(
                f"Expected a finished run to keep files with, {chosen.id} is {chosen.state}.",
                hint="Its curves are sent without --also.",
            )
        curves = curves_of(store, chosen, adapter_folder(folder, chosen), also or [])
    name = send(uri, curves)
    facts = {"run": chosen.id, "mlflow_run": name, "rounds": len(curves.rounds)}
    typer.echo(
        json.dumps(facts) if as_json else f"{chosen.id}: {len(curves.rounds)} rounds are in MLflow's run {name}."
    )
