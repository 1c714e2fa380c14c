"""Do what `fedvault-sim sweep` does: run, print, and say what was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console

from simulations.experiment.scenario import data_path, load
from simulations.quiet import quiet_libraries
from simulations.sweeps.cells import cells_of, read_axis
from simulations.sweeps.order import Order, carry_out
from simulations.sweeps.outcome import Sweep
from simulations.sweeps.outcome import as_json as to_json
from simulations.sweeps.text import announcer, render


class SweepOptions(NamedTuple):
    """How a sweep is run, and printed."""

    at_once: int
    choose: bool
    ray_address: str | None
    as_json: bool


def sweep_file(file: Path, over: Sequence[str], changes: Sequence[str], folder: Path, how: SweepOptions) -> bool:
    """Run a scenario at every combination of values; returns false if a run failed.

    Raises:
        SettingsError: a combination is no valid scenario; nothing was run then.
    """
    axes = tuple(map(read_axis, over))
    cells = cells_of(axes, changes)
    data_path(load(file, changes), file)
    quiet_libraries()
    order = Order(file, tuple(changes), axes, folder, at_once=how.at_once, ray_address=how.ray_address)
    made = carry_out(order, choose=how.choose, done=announcer(Console(stderr=True), len(cells)))
    show(made, folder, as_json=how.as_json)
    return not made.errors


def show(made: Sweep, folder: Path, *, as_json: bool) -> None:
    """Print what a sweep shows, and where its files are."""
    if as_json:
        typer.echo(to_json(made))
    else:
        render(made, Console())
        written = [folder / name for name in ("table.csv", "sweep.svg", "sweep.json") if (folder / name).exists()]
        Console().print("\n" + "   ".join(map(str, written)), highlight=False, soft_wrap=True)
