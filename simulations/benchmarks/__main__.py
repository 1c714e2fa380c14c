"""`python -m simulations.benchmarks [NAME ...]`: without a name, every benchmark that needs no further data."""

import importlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from shared.command_line import run_command
from shared.files import write_atomically
from simulations.benchmarks.measure import Ratio
from simulations.quiet import ENVIRONMENT, quiet_libraries

FOLDER = Path("runs/bench")
console, progress = Console(), Console(stderr=True)


class Benchmark(NamedTuple):
    """A benchmark's module, and how long it takes on two cores."""

    module: str
    minutes: int
    needs: str = ""
    """What to type first; such a benchmark runs only by its name."""


BENCHMARKS = {
    "step": Benchmark("speed.private_step", 1),
    "training": Benchmark("speed.training", 9),
    "node-memory": Benchmark("memory.node_memory", 2),
    "engines": Benchmark("speed.engines", 2),
    "clients": Benchmark("speed.clients", 6),
    "server-memory": Benchmark("memory.server_memory", 4),
    "rounds": Benchmark("speed.rounds", 5),
    "many-nodes": Benchmark("speed.many_nodes", 8),
    "store-work": Benchmark("speed.store_work", 1, needs="apt-get install postgresql"),
    "secure-sum": Benchmark("secure_sum", 3),
    "update-sizes": Benchmark("memory.update_sizes", 3),
    "decoders": Benchmark("speed.decoders", 10),
    "heads": Benchmark("quality.heads", 15, needs="fedvault-sim data fetch reuters newsgroups"),
}
BY_DEFAULT = [name for name, benchmark in BENCHMARKS.items() if not benchmark.needs]


def _listed() -> str:
    by_name = [f"{name} ({b.minutes} min), after `{b.needs}`" for name, b in BENCHMARKS.items() if b.needs]
    default = ", ".join(f"{name} ({BENCHMARKS[name].minutes} min)" for name in BY_DEFAULT)
    return f"{default}; default: these. Only by its name: {', '.join(by_name)}"


def main(
    names: Annotated[list[str] | None, typer.Argument(help=_listed())] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure ratios beside what a user would otherwise run, and accuracies; keep them in runs/bench/.

    A ratio is ours by theirs, median and quartiles over neighbouring turns, with the aim for it where one was set. Of
    seconds and memory less is better, of records and clients per second more.
    """
    os.environ |= ENVIRONMENT
    quiet_libraries()
    logging.getLogger("simulations").setLevel(logging.ERROR)
    for name in names or BY_DEFAULT:
        if name not in BENCHMARKS:
            raise typer.BadParameter(f"Expected some of {', '.join(BENCHMARKS)}, got {name!r}.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[dict[str, Any]]] = {}
    for name in names or BY_DEFAULT:
        rows = _measured(name)
        figures[name] = [asdict(row) for row in rows]
        write_atomically(FOLDER / f"{name}.json", json.dumps(figures[name], indent=1).encode())
        if not as_json:
            console.print(_table(name, rows))
    if as_json:
        console.print_json(data=figures)


def _measured(name: str) -> list[Any]:
    module, minutes, _ = BENCHMARKS[name]
    rows = []
    with progress.status(f"{name}: about {minutes} min on two cores") as status:
        for row in importlib.import_module(f"simulations.benchmarks.{module}").rows():
            rows.append(row)
            status.update(f"{name}: about {minutes} min on two cores, {len(rows)} rows so far")
    return rows


def _table(name: str, rows: Sequence[Any]) -> Table:
    table = Table(title=name, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    texts = [_texts(row) for row in rows]
    for heading in texts[0]:
        table.add_column(heading, overflow="fold")
    for text in texts:
        table.add_row(*text.values())
    return table


def _texts(row: Any) -> dict[str, str]:
    """Return a row's texts by heading; the figures of a ratio share a column, so that eighty columns suffice."""
    if isinstance(row, Ratio):
        return {
            "measure": row.measure,
            "beside": row.peer,
            "ours / theirs": f"{_short(row.ours)} / {_short(row.theirs)} {row.unit}",
            "ratio (quartiles)": f"{_short(row.ratio)} ({_short(row.low)} to {_short(row.high)})",
            "aim": row.aim,
        }
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in asdict(row).items()}


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
