"""`python -m simulations.benchmarks.quality`: real sets, natural sites, several epsilons and seeds; resumable."""

import json
import logging
import math
import os
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from shared.command_line import run_command
from shared.files import write_atomically
from simulations.benchmarks.quality.figures import gains, rows
from simulations.benchmarks.quality.plot import page
from simulations.benchmarks.quality.recipe import as_planned
from simulations.benchmarks.quality.sets import EPSILONS, SEEDS, SETS, Case, cases
from simulations.experiment.scenario import data_path
from simulations.progress import SilentProgress
from simulations.quiet import ENVIRONMENT, quiet_libraries
from simulations.results.result import Result
from simulations.run import Run

FOLDER = Path("runs/bench/quality")
console = Console()


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Sets: {', '.join(SETS)}; default: all.")] = None,
    epsilons: Annotated[list[float] | None, typer.Option("--epsilon", help="May be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1 to this one.")] = SEEDS,
    out: Annotated[Path, typer.Option(help="Folder of all runs: finished ones are not run again.")] = FOLDER,
    short: Annotated[
        bool, typer.Option(help="Only the study, the head and the largest site alone: paired differences.")
    ] = False,
    whitening: Annotated[bool, typer.Option("--whitening/--no-whitening", help="Where noise allows it.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run what is not done yet, print the tables and draw OUT/quality.html. Minutes for each set, epsilon and seed."""
    os.environ |= ENVIRONMENT
    quiet_libraries()
    logging.getLogger("simulations").setLevel(logging.ERROR)
    wanted = cases(tuple(names or SETS), tuple(epsilons or EPSILONS), seeds, short=short, whitening=whitening)
    results: dict[Case, Result] = {}
    bars = (TextColumn("{task.description:<40}"), BarColumn(bar_width=14), MofNCompleteColumn())
    with Progress(*bars, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(wanted))
        for case in wanted:
            progress.update(bar, description=f"{case.name}, epsilon {case.epsilon:g}, seed {case.seed}")
            results[case] = run(case, out)
            progress.advance(bar)
    figures, differences = rows(results), gains(results)
    plain = {"figures": [*map(_plain, figures)], "gains": [*map(_plain, differences)]}
    write_atomically(out / "quality.json", json.dumps(plain, indent=1, allow_nan=False).encode())
    write_atomically(out / "quality.html", page(figures, differences).encode())
    if as_json:
        console.print_json(data=plain)
        return
    console.print(_table("quality on held-out records", figures))
    console.print(_table("federated minus another arm, in points, seed by seed", differences))
    console.print(f"plot: {out / 'quality.html'}")


def run(case: Case, root: Path) -> Result:
    """Run or resume one case; runs of one set and seed share their frozen activations."""
    wanted, case = case.arms, case.or_finished(root)
    scenario = as_planned(case)
    cache = root / case.name / f"seed-{case.seed}" / "cache"
    one = Run(scenario, data_path(scenario, case.path), case.folder(root), SilentProgress(), cache=cache)
    one.open(resume=True)
    result = one.execute()
    arms = {name: arm for name, arm in result.arms.items() if name.partition(":")[0] in wanted}
    return result.model_copy(update={"arms": arms})


def _plain(row: Any) -> dict[str, Any]:
    """Return plain values for JSON; an infinite epsilon and the interval of a single seed become null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(row).items()
    }


def _table(title: str, table: Any) -> Table:
    shown = Table(title=title, title_justify="left")
    for field in fields(table[0]):
        shown.add_column({"name": "set"}.get(field.name, field.name))
    for row in table:
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in astuple(row)))
    return shown


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
