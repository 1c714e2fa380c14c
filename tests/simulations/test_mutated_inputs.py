"""Mutated tables and model folders through the command: each is a result that accounts for its rows, or two lines."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from shared.errors import FedVaultError
from shared.records.tables import read_table
from tests.support.mutated_models import ANY, REFUSED, REFUSED_TEXT, SAME, make_folder
from tests.support.mutated_tables import mutated

EACH = 10
SCENARIO = """
[study]
name = "mutated"
[model]
source = "base"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 16
[adapter]
layers = "last:1"
[privacy]
epsilon = 8.0
sampling_rate = 0.3
[training]
local_steps = 1
[federation]
rounds = 1
smallest_declared_size = 2
[performance]
threads = 1
[simulation]
arms = ["majority", "federated"]
processes = 1
[simulation.data]
source = "{source}"
partition = {{ by = "iid", sites = 2 }}
"""
ROWS = pd.DataFrame(
    [(f"word{n % 15} word{n * 7 % 15} word{n % 11}", ("no", "yes")[n % 2]) for n in range(60)],
    columns=["text", "label"],
)


def fate(folder: Path, source: str) -> str:
    """Run the command in a folder; whatever it prints is no traceback, and a result accounts for every row."""
    (folder / "s.toml").write_text(SCENARIO.format(source=source))
    command = [sys.executable, "-m", "simulations", "run", "s.toml", "--out", "out"]
    environment = os.environ | {"COLUMNS": "200"}
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=900, check=False, env=environment
    )
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said, said
    if ended.returncode:
        assert ended.returncode in {kind.exit_code for kind in FedVaultError.__subclasses__()}, said
        # below the progress that was shown
        assert "\nerror: Expected " in f"\n{said}" and not (folder / "out" / "result.json").exists(), said
        return "refused"
    sites = json.loads((folder / "out" / "result.json").read_text())["data"].values()
    assert all(site["train"] + site["holdout"] + site["dropped"] == site["rows"] for site in sites)
    assert sum(site["rows"] for site in sites) == len(read_table(folder / source, ["text", "label"]))
    return "a result"


@pytest.mark.slow
def test_ten_mutated_tables_through_the_command(tmp_path: Path) -> None:
    dice, fates, content = random.Random(23), Counter[str](), ROWS.to_csv(index=False).encode()
    for number in range(EACH):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_folder("bert", folder / "base")
        (folder / "t.csv").write_bytes(mutated(content, dice) if number else content)
        fates[fate(folder, "t.csv")] += 1
    assert fates.total() == EACH and fates["a result"] >= 1 and fates["refused"] >= 1, fates


@pytest.mark.slow
def test_ten_mutated_model_folders_through_the_command(tmp_path: Path) -> None:
    dice, kinds = random.Random(23), [*REFUSED, *REFUSED_TEXT]
    chosen = [*dice.sample(kinds, EACH - 3), *dice.sample(list(SAME), 2), dice.choice(list(ANY))]
    for number, kind in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_folder("bert", folder / "base")
        (REFUSED | REFUSED_TEXT | SAME | ANY)[kind](folder / "base", dice)
        ROWS.to_csv(folder / "t.csv", index=False)
        outcome = fate(folder, "t.csv")
        assert outcome == "refused" or kind in SAME or kind in ANY, kind
        assert outcome == "a result" or kind not in SAME, kind
        shutil.rmtree(folder)
