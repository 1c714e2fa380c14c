"""`python -m simulations.benchmarks.fairness`: gaps between groups over epsilon, on real records; resumable."""

import json
import logging
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shared.command_line import run_command
from shared.files import write_atomically
from simulations.benchmarks.fairness.cases import EPSILONS, SETS, Case, cases
from simulations.benchmarks.fairness.gaps import Row, rows
from simulations.benchmarks.fairness.page import HEADER, cells, page
from simulations.experiment.scenario import data_path
from simulations.progress import SilentProgress
from simulations.quiet import ENVIRONMENT, quiet_libraries
from simulations.results.result import Result
from simulations.run import Run

FOLDER = Path("runs/bench/fairness")


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Sets: {', '.join(SETS)}; default: all.")] = None,
    epsilons: Annotated[list[float] | None, typer.Option("--epsilon", help="May be given several times.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1 to this one.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of all runs: finished ones are not run again.")] = FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run what is not done yet, print the table and draw OUT/fairness.html."""
    os.environ |= ENVIRONMENT
    quiet_libraries()
    logging.getLogger("simulations").setLevel(logging.ERROR)
    results: dict[Case, Result] = {}
    with Console(stderr=True).status("") as status:
        for case in cases(tuple(names or SETS), tuple(epsilons or EPSILONS), seeds):
            status.update(f"{case.name}, epsilon {case.epsilon:g}, seed {case.seed}")
            results[case] = run(case, out)
    figures = rows(results)
    plain = [asdict(row) | {"epsilon": row.epsilon if math.isfinite(row.epsilon) else None} for row in figures]
    write_atomically(out / "fairness.json", json.dumps(plain, indent=1, allow_nan=False).encode())
    write_atomically(out / "fairness.html", page(figures).encode())
    console = Console()
    if as_json:
        console.print_json(data=plain)
        return
    console.print(_table(figures))
    console.print(f"picture: {out / 'fairness.html'}")


def run(case: Case, root: Path) -> Result:
    """Run or resume one case; runs of one set and seed share their frozen activations."""
    scenario, cache = case.scenario(), root / case.name / f"seed-{case.seed}" / "cache"
    one = Run(scenario, data_path(scenario, case.path), case.folder(root), SilentProgress(), cache=cache)
    one.open(resume=True)
    return one.execute()


def _table(figures: list[Row]) -> Table:
    shown = Table(title="gaps between groups, in points", title_justify="left")
    for heading in HEADER:
        shown.add_column(heading)
    for row in figures:
        shown.add_row(*cells(row))
    return shown


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
