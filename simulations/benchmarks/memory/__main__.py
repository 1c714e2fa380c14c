"""`python -m simulations.benchmarks.memory`: what one GPU holds, in a table; below ten minutes, and only on a GPU."""

import json
import os
from dataclasses import asdict, fields
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from shared.command_line import run_command
from shared.files import write_atomically
from simulations.benchmarks.__main__ import FOLDER
from simulations.benchmarks.memory.big_models import CASES, LIMIT_S, Measured, rows
from simulations.quiet import ENVIRONMENT, quiet_libraries

NOTHING_HERE = (
    "Nothing was measured: PyTorch finds no CUDA device here. The figures are of a GPU's memory and pace, and a CPU's "
    "would say nothing about them."
)
console, progress = Console(), Console(stderr=True)


def main(
    limit_s: Annotated[float, typer.Option(help="Seconds after which no further model is begun.")] = LIMIT_S,
) -> None:
    """Measure peak memory and records per second of private steps: 135M, 0.5B, 1.2B and 8B in four bits.

    Weights are random. Where there is no GPU nothing runs, and the command says so.
    """
    import torch

    os.environ |= ENVIRONMENT
    quiet_libraries()
    if not torch.cuda.is_available():
        console.print(NOTHING_HERE)
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    console.print(torch.cuda.get_device_name())
    figures, table = list[Measured](), _table()
    with progress.status("Writing and training random models") as status:
        for row in rows(CASES, device="cuda", limit_s=limit_s):
            if isinstance(row, str):
                progress.print(row)
                continue
            figures.append(row)
            table.add_row(*(f"{value:.3g}" if isinstance(value, float) else value for value in asdict(row).values()))
            status.update(f"{len(figures)} of {len(CASES)} measured")
            # each is kept at once: a machine that is lent may be gone before the last
            write_atomically(FOLDER / "big-models.json", json.dumps([asdict(each) for each in figures]).encode())
    console.print(table)


def _table() -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for field in fields(Measured):
        table.add_column(field.name.replace("_", " "))
    return table


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
