"""The command `fedvault-sim search`."""

import math
from pathlib import Path
from typing import Annotated

import typer


def search(
    scenario: Annotated[Path, typer.Argument(help="A TOML file.")],
    between: Annotated[
        list[str],
        typer.Option("--between", metavar="KEY=LOW..HIGH", help="A key to search; may be repeated."),
    ],
    seeds: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=V,V,…", help="Seeds; a setting's quality is then a mean over them."),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one value; may be repeated.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=1000, help="Settings to try.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/<name of the file>-search.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print sweep.json instead of tables.")] = False,
) -> None:
    """Look for good settings between bounds, by validation records; the best then runs on the held-out ones.

    Optuna proposes each setting by what those before it showed: pip install 'fedvault[search]'. A search that was
    stopped goes on with the same command, also with more trials. Exits with 1 if a run failed.

    Example: fedvault-sim search my-study.toml --between training.learning_rate=0.5..20 --trials 20
    """
    from rich.console import Console

    from shared.errors import SettingsError
    from simulations.experiment.scenario import data_path, load
    from simulations.quiet import quiet_libraries
    from simulations.sweeps.cells import read_axis
    from simulations.sweeps.command import show
    from simulations.sweeps.order import Order
    from simulations.sweeps.search import read_range
    from simulations.sweeps.search import search as searched
    from simulations.sweeps.text import announcer

    ranges, repeats = tuple(map(read_range, between)), tuple(map(read_axis, seeds or []))
    if settings := [axis.key for axis in repeats if not axis.repeats]:
        raise SettingsError(
            f"Expected seeds in --over, got {settings[0]}.", hint="`fedvault-sim sweep` tries given values."
        )
    folder, wanted = out or Path("runs") / f"{scenario.stem}-search", tuple(changes or [])
    data_path(load(scenario, wanted), scenario)
    quiet_libraries()
    count = trials * math.prod(len(axis.values) for axis in repeats)
    made = searched(
        Order(scenario, wanted, repeats, folder),
        ranges,
        trials=trials,
        done=announcer(Console(stderr=True), count),
    )
    show(made, folder, as_json=as_json)
    if made.errors or (made.trial is not None and made.trial.errors):
        raise typer.Exit(1)
