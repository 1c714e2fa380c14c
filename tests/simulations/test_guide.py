"""The guide to simulations, typed as it stands, with a tiny model and few rows."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.documents import blocks, commands
from tests.support.paths import ROOT

GUIDE = "simulations/README.md"


def typed(line: str, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    assert program == ".venv/bin/fedvault-sim"
    done = subprocess.run(
        [sys.executable, "-m", "simulations", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_study_of_your_own_as_the_guide_says(tmp_path: Path, tiny_bert: Path, table: pd.DataFrame) -> None:
    (scenario,) = blocks(GUIDE, "toml")
    model, source = scenario.split("source = ", 2)[1].split('"')[1], str(tiny_bert)
    small = "[federation]\nrounds = 2\nsmallest_declared_size = 20\n"
    short = scenario.replace(model, source).replace("[privacy]", "max_length = 24\n[privacy]")
    (tmp_path / "my-study.toml").write_text(short + small)
    table.to_csv(tmp_path / "data.csv", index=False)
    plan, *runs, report = commands(GUIDE)
    assert "noise" in typed(plan, tmp_path)
    for line in runs:
        typed(line, tmp_path)
    shown = json.loads(typed(report, tmp_path))
    assert shown["scenario"]["privacy"]["epsilon"] == 1.0
    local, ray = (json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in ("my-study", "ray"))
    assert local["arms"]["federated"]["quality"] == ray["arms"]["federated"]["quality"], "the same to the last bit"
