"""Whole runs over the tiny BERT: their scenario, how they are begun, and the adapter that they leave."""

from pathlib import Path
from typing import Any

import pandas as pd

from simulations.experiment.scenario import Scenario
from simulations.progress import SilentProgress
from simulations.run import Run


def run_of(
    scenario: Scenario, folder: Path, table: pd.DataFrame, *, resume: bool = False, ray_address: str | None = None
) -> Run:
    source = folder.parent / "table.csv"
    source.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(source, index=False)
    prepared = Run(scenario, source, folder, SilentProgress(), ray_address=ray_address)
    prepared.open(resume=resume)
    return prepared


def packed(folder: Path) -> bytes:
    return (folder / "adapter" / "packed.safetensors").read_bytes()


def declaration(tiny: Path) -> dict[str, Any]:
    return {
        "study": {"name": "whole"},
        "model": {"source": str(tiny)},
        "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
        "adapter": {"layers": "last:1"},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.3},
        "training": {"local_steps": 4},
        "federation": {"rounds": 3, "smallest_declared_size": 20},
        "simulation": {
            "seed": 7,
            "data": {"source": "table.csv", "partition": {"by": "column", "column": "site"}},
        },
    }
