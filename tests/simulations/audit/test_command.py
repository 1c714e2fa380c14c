"""`python -m simulations.audit` says which claims hold and which faults it catches, and fails if one escapes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from simulations.audit.__main__ import HONEST, Row, audits, table
from simulations.audit.audit import Audit
from simulations.audit.audited_site import Claim
from simulations.audit.one_run_bound import Guesses
from tests.support.paths import ROOT


def test_each_claim_is_audited_by_unit_and_whitening_and_with_each_fault(tmp_path: Path) -> None:
    rows = list(audits([Claim(3.0, sampling_rate=1.0, rounds=2, canaries=320)], tmp_path))
    variants = [(row.audit.claim.unit, row.audit.claim.whitening) for row in rows if row.code == HONEST]
    assert variants == [("record", False), ("record", True), ("patient", False), ("patient", True)]
    assert [row.code for row in rows[4:]] == ["half the noise", "no clipping", "one seed twice"]
    console = Console(width=200)
    with console.capture() as printed:
        console.print(table(rows))
    assert "one seed twice" in printed.get() and "no power" in printed.get(), (
        "so few canaries cannot see half the noise"
    )


@pytest.mark.parametrize(
    ("code", "at_least", "power_of_half", "expected"),
    [
        (HONEST, 1.5, 4.0, True),
        (HONEST, 3.1, 4.0, False),
        (HONEST, 3.1, 2.0, False),
        (HONEST, 1.5, 2.0, True),
        ("no clipping", 3.1, 4.0, True),
        ("no clipping", 2.9, 4.0, False),
        ("no clipping", 2.9, 2.0, True),
    ],
)
def test_a_refuted_claim_and_a_fault_that_passes_are_unexpected(
    code: str, at_least: float, power_of_half: float, expected: bool
) -> None:
    passing = Audit(Claim(3.0), Guesses(5000, 500, 400), 0.0, 0.0, 1.8, 0.0)
    one = replace(passing, epsilon_at_least=at_least, power_of_half=power_of_half)
    assert Row(code, one).as_expected == expected


@pytest.mark.slow
def test_the_command_prints_json() -> None:
    options = ["--epsilon", "3", "--sampling-rate", "1", "--rounds", "2", "--canaries", "5000", "--json"]
    command = [sys.executable, "-m", "simulations.audit", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    verdicts = [row["verdict"] for row in json.loads(result.stdout)]
    assert verdicts == ["passes"] * 4 + ["refuted"] * 3
