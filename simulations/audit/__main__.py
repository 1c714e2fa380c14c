"""`python -m simulations.audit`: epsilon from below beside what is claimed, and whether faults are caught."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from client.vault.training.randomness import OsRandomness
from shared.command_line import run_command
from shared.study.sections import RECORD
from simulations.audit.audit import Audit, audit
from simulations.audit.audited_site import Claim
from simulations.audit.controls import half_the_noise, one_seed_twice, without_clipping
from simulations.cli import ENVIRONMENT, quiet_libraries

HONEST = "honest"
console, progress = Console(), Console(stderr=True)


class Row(NamedTuple):
    """One audit."""

    code: str
    """`honest`, or the fault that was put in."""
    audit: Audit

    @property
    def as_expected(self) -> bool:
        """False if an honest run is refuted, or a fault passes."""
        return self.audit.verdict != ("refuted" if self.code == HONEST else "passes")


def main(
    epsilon: Annotated[list[float] | None, typer.Option(help="Claims to audit; default: 1, 3 and 8.")] = None,
    sampling_rate: Annotated[float, typer.Option(help="Of the Poisson sample of each round.")] = 0.5,
    rounds: Annotated[int, typer.Option(help="Of one step each; an even number.")] = 24,
    canaries: Annotated[int, typer.Option(help="More of them see more.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Attack the node's own training with canaries, and print the ε that they show beside the one that is claimed.

    Exits with 1 if a claim is refuted, or if a fault is not caught that the audit has the power to catch. With its
    defaults it takes about four minutes.
    """
    os.environ |= ENVIRONMENT
    quiet_libraries()
    torch.set_num_threads(1)  # products are so small that further threads only wait for one another
    logging.getLogger("simulations").setLevel(logging.ERROR)
    claims = [
        Claim(each, sampling_rate=sampling_rate, rounds=rounds, canaries=canaries) for each in epsilon or (1, 3, 8)
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder, progress.status("auditing") as status:
        for row in audits(claims, Path(folder)):
            rows.append(row)
            status.update(f"auditing, {len(rows)} rows so far")
    if as_json:
        console.print_json(
            json.dumps([{"code": row.code, **asdict(row.audit), "verdict": row.audit.verdict} for row in rows])
        )
    else:
        console.print(table(rows))
    if not all(row.as_expected for row in rows):
        raise typer.Exit(1)


def audits(claims: list[Claim], folder: Path) -> Iterator[Row]:
    """Audit each claim for records and units, whitened or not, and then with each fault."""
    for claim in claims:
        for unit in (RECORD, "patient"):
            for whitening in (False, True):
                variant = Claim(**asdict(claim) | {"unit": unit, "whitening": whitening})
                yield Row(HONEST, audit(variant, folder, seed=1))
    nothing: AbstractContextManager[None] = nullcontext()
    for claim in claims:
        for code, fault in (
            ("half the noise", half_the_noise()),
            ("no clipping", without_clipping()),
            ("one seed twice", nothing),
        ):
            source = one_seed_twice(1) if fault is nothing else lambda _round: OsRandomness()
            with fault:
                yield Row(code, audit(claim, folder, seed=1, randomness=source))


def table(rows: list[Row]) -> Table:
    """Lay the audits out, one a line: bounds beside the claim, then what ideal noise and half of it would show."""
    laid_out = Table(title="ε from below, at 95 %", title_justify="left", box=None, pad_edge=False)
    for heading in ("code", "unit", "claim", "at least", "if ideal", "if half", "verdict"):
        laid_out.add_column(heading, no_wrap=True)
    for code, one in rows:
        figures = (one.claim.epsilon, one.epsilon_at_least, one.power, one.power_of_half)
        unit = f"{one.claim.unit}, whitened" if one.claim.whitening else one.claim.unit
        laid_out.add_row(code, unit, *(f"{figure:.2f}" for figure in figures), one.verdict)
    return laid_out


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
