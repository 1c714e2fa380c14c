"""`python -m simulations.benchmarks [NAME ...]`: without a name, every benchmark that needs no further data."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from shared.command_line import run_command
from shared.files import write_atomically
from simulations.cli import QUIET, quiet_libraries

FOLDER = Path("runs/bench")
console = Console()


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="step (1 min), training (9 min), node-memory (2 min), engines (5 min), clients (6 min), "
            "server-memory (4 min), rounds (5 min), wire (3 min), decoders (10 min); default: these. "
            "heads (15 min): only by its name, after `fedvault-sim data fetch reuters newsgroups`"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure ratios beside what a user would otherwise run, and accuracies; keep them in runs/bench/.

    A ratio is ours by theirs, median and quartiles over neighbouring turns, with the aim for it where one was set. Of
    seconds and memory less is better, of records and clients per second more.
    """
    os.environ |= QUIET
    quiet_libraries()
    logging.getLogger("simulations").setLevel(logging.ERROR)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or [name for name in BENCHMARKS if name not in BY_NAME_ONLY]:
        if name not in BENCHMARKS:
            raise typer.BadParameter(f"Expected some of {', '.join(BENCHMARKS)}, got {name!r}.")
        found = list(BENCHMARKS[name]())
        plain = [asdict(row) for row in found]
        write_atomically(FOLDER / f"{name}.json", json.dumps(plain, indent=1).encode())
        console.print_json(data=plain) if as_json else console.print(_table(name, found))


def _step() -> Iterable[Any]:
    from simulations.benchmarks import private_step

    return private_step.rows()


def _training() -> Iterable[Any]:
    from simulations.benchmarks import training

    return training.rows()


def _node_memory() -> Iterable[Any]:
    from simulations.benchmarks import node_memory

    return node_memory.rows()


def _engines() -> Iterable[Any]:
    from simulations.benchmarks import engines

    return engines.rows()


def _clients() -> Iterable[Any]:
    from simulations.benchmarks import clients

    return clients.rows()


def _server_memory() -> Iterable[Any]:
    from simulations.benchmarks import server_memory

    return server_memory.rows()


def _rounds() -> Iterable[Any]:
    from simulations.benchmarks import rounds

    return rounds.rows()


def _wire() -> Iterable[Any]:
    from simulations.benchmarks import wire

    return wire.rows()


def _decoders() -> Iterable[Any]:
    from simulations.benchmarks import decoders

    return decoders.rows()


def _heads() -> Iterable[Any]:
    from simulations.benchmarks import heads

    return heads.rows()


def _table(name: str, rows: Sequence[Any]) -> Table:
    table = Table(title=name, title_justify="left")
    for field in fields(rows[0]):
        table.add_column(field.name)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in astuple(row)))
    return table


BENCHMARKS: dict[str, Callable[[], Iterable[Any]]] = {
    "step": _step,
    "training": _training,
    "node-memory": _node_memory,
    "engines": _engines,
    "clients": _clients,
    "server-memory": _server_memory,
    "rounds": _rounds,
    "wire": _wire,
    "decoders": _decoders,
    "heads": _heads,
}

BY_NAME_ONLY = ("heads",)

if __name__ == "__main__":
    run_command(lambda: typer.run(main))
