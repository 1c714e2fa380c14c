"""Audit what training claims at some epsilons, for records and units, whitened or not, and with faults put in."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from client.vault.training.randomness import OsRandomness
from shared.study.sections import RECORD
from simulations.audit.audit import Audit, audit
from simulations.audit.audited_site import Claim
from simulations.audit.controls import (
    masks_of_zeros,
    masks_used_twice,
    one_seed_twice,
    one_share_missing,
    part_of_the_noise,
    without_clipping,
)
from simulations.audit.summed_sites import MANY, audit_sum

HONEST = "honest"
EPSILONS = (1.0, 3.0, 8.0)
SAMPLING_RATE, ROUNDS = 0.5, 24


class Row(NamedTuple):
    """One audit."""

    code: str
    """`honest`, or the fault that was put in."""
    audit: Audit
    summed: bool = False
    """Whether the nodes share the noise, and the server opens their sum alone."""

    @property
    def as_expected(self) -> bool:
        """False if an honest run is refuted, or a fault passes."""
        return self.audit.verdict != ("refuted" if self.code == HONEST else "passes")


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
            ("half the noise", part_of_the_noise(2)),
            ("no clipping", without_clipping()),
            ("one seed twice", nothing),
        ):
            source = one_seed_twice(1) if fault is nothing else lambda _round: OsRandomness()
            with fault:
                yield Row(code, audit(claim, folder, seed=1, randomness=source))


def sum_audits(claims: list[Claim], folder: Path) -> Iterator[Row]:
    """Audit what a server with colluders sees of a sum whose nodes share each claim's noise, and then with each fault.

    All records take part in each of two rounds: more of them show no more here, and the masks are used twice at once.
    """
    for claim in claims:
        of_all = replace(claim, sampling_rate=1.0, rounds=2)
        yield Row(HONEST, audit_sum(of_all, folder, seed=1), summed=True)
        with one_share_missing():
            yield Row("one share missing", audit_sum(of_all, folder, seed=1), summed=True)
        with masks_of_zeros():
            yield Row("masks of zeros", audit_sum(of_all, folder, seed=1, sizes=MANY, view="message"), summed=True)
        with masks_used_twice():
            yield Row("masks used twice", audit_sum(of_all, folder, seed=1, sizes=MANY, view="difference"), summed=True)


def table(rows: list[Row]) -> Table:
    """Lay the audits out, one a line: bounds beside the claim, then what ideal noise and half of it would show."""
    laid_out = Table(title="ε from below, at 95 %", title_justify="left", box=None, pad_edge=False)
    for heading in ("code", "unit", "claim", "at least", "if ideal", "if half", "verdict"):
        laid_out.add_column(heading, no_wrap=True)
    for code, one, summed in rows:
        figures = (one.claim.epsilon, one.epsilon_at_least, one.power, one.power_of_half)
        unit = f"{one.claim.unit}{', whitened' if one.claim.whitening else ''}{', summed' if summed else ''}"
        laid_out.add_row(code, unit, *(f"{figure:.2f}" for figure in figures), one.verdict)
    return laid_out


def as_json(rows: list[Row]) -> str:
    """Return the audits as JSON."""
    return json.dumps(
        [{"code": row.code, "summed": row.summed, **asdict(row.audit), "verdict": row.audit.verdict} for row in rows]
    )
