"""A scenario over the tiny BERT, with a table of three sites and everything that goes wrong in real tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.study.parsing import parse
from simulations.experiment.scenario import Scenario

SITES = ("north", "south", "east")


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts whose label one of their words decides."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = [f"word{i}" for i in generator.integers(0, 60, generator.integers(2, 12))]
        label = int(generator.integers(2))
        words.insert(int(generator.integers(len(words))), ("bad", "good")[label])
        rows.append((" ".join(words), ("no", "yes")[label]))
    return rows


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    rows = [(*pair, site) for i, site in enumerate(SITES) for pair in sentences(120, seed=i)]
    return pd.DataFrame(rows, columns=["text", "label", "site"])


@pytest.fixture
def declare(tiny_bert: Path) -> Callable[..., dict[str, Any]]:
    """A scenario as a TOML file would hold it; sections are given as keywords."""

    def make(**sections: dict[str, Any]) -> dict[str, Any]:
        declared: dict[str, Any] = {
            "study": {"name": "test"},
            "model": {"source": str(tiny_bert)},
            "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
            "privacy": {"epsilon": 8.0, "sampling_rate": 0.3},
            "training": {"local_steps": 2},
            "federation": {"rounds": 3, "smallest_declared_size": 20},
            "simulation": {
                "seed": 7,
                "data": {"source": "table.csv", "partition": {"by": "column", "column": "site"}},
            },
        }
        for name, values in sections.items():
            declared[name] = declared.get(name, {}) | values
        return declared

    return make


@pytest.fixture
def scenario(declare: Callable[..., dict[str, Any]]) -> Callable[..., Scenario]:
    return lambda **sections: parse(Scenario, declare(**sections), where="test")
