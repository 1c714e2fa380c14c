"""`python -m simulations.benchmarks.fairness`: gaps between groups over epsilon, on real records; resumable."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shared.command_line import run_command
from shared.files import write_atomically
from shared.pages.charts import on_white
from simulations.benchmarks.fairness.cases import EPSILONS, SETS, Case, cases
from simulations.benchmarks.fairness.gaps import ACCURACY, rows
from simulations.benchmarks.fairness.page import GAP_HEADER, HEADER, cells, gap_cells, gap_picture, page, picture
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
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures of each set; default: OUT.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run what is not done yet, print tables, and draw OUT/fairness.html and two pictures of each set."""
    os.environ |= ENVIRONMENT
    quiet_libraries()
    logging.getLogger("simulations").setLevel(logging.ERROR)
    results: dict[Case, Result] = {}
    with Console(stderr=True).status("") as status:
        for case in cases(tuple(names or SETS), tuple(epsilons or EPSILONS), seeds):
            status.update(f"{case.name}, epsilon {case.epsilon:g}, seed {case.seed}")
            results[case] = run(case, out)
    figures = rows(results)
    plain = [asdict(row) | {"effect": row.effect.model_dump()} for row in figures]
    write_atomically(out / "fairness.json", json.dumps(plain, indent=1, allow_nan=False).encode())
    write_atomically(out / "fairness.html", page(figures).encode())
    for name in dict.fromkeys(row.name for row in figures):
        write_atomically((pictures or out) / f"{name}.svg", on_white(picture(name, figures).svg).encode())
        write_atomically((pictures or out) / f"{name}-gaps.svg", on_white(gap_picture(name, figures).svg).encode())
    console = Console()
    if as_json:
        console.print_json(data=plain)
        return
    shown = [row for row in figures if row.subgroup and row.rate == ACCURACY]
    console.print(_table("subgroups, in points", HEADER, map(cells, shown)))
    console.print(_table("gaps, in points", GAP_HEADER, [gap_cells(row) for row in figures if not row.subgroup]))
    console.print(f"page: {out / 'fairness.html'}")


def run(case: Case, root: Path) -> Result:
    """Run or resume one case; runs of one set have the same records, and so share their frozen activations."""
    scenario, cache = case.scenario(), root / case.name / "cache"
    one = Run(scenario, data_path(scenario, case.path), case.folder(root), SilentProgress(), cache=cache)
    one.open(resume=True)
    return one.execute()


def _table(title: str, header: Sequence[str], shown: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in header:
        table.add_column(heading)
    for row in shown:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
