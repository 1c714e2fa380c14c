"""One node for the tests of a file: tests use runs of their own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.base_models.locate import find
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.sections import Model
from tests.support.operators_page import PURPOSE

CELL = "zebrafish"
"""Stands in cells of the records, and nowhere else."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A node.toml with one dataset whose cells nobody must see."""
    folder = tmp_path_factory.mktemp("north")
    rows = [f"{CELL} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
    (folder / "ward.csv").write_text("\n".join(["text,label", *rows, f"{CELL},{CELL}", f",{CELL}"]) + "\n")
    policy = {"epsilon": 3.0, "delta": 1e-5, "declared_size": 54, "models": [_fingerprint(tiny_bert)]}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in policy.items())
    (folder / "node.toml").write_text(
        f'[node]\nmodels = "{tiny_bert.parent}"\n[datasets.ward]\nsource = "ward.csv"\n{lines}\n'
    )
    return folder / "node.toml"


@pytest.fixture(scope="module")
def study_of(tiny_bert: Path) -> Callable[..., Study]:
    """Makes studies that differ in what they say of themselves."""

    def make(name: str, epsilon: float = 0.3, **stated: Any) -> Study:
        declared: dict[str, Any] = {
            "study": {"name": name, **(PURPOSE | stated)},
            "model": {"source": str(tiny_bert), "fingerprint": _fingerprint(tiny_bert)},
            "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
            "federation": {"rounds": 3, "smallest_declared_size": 10, "quorum": 3},
            "training": {"local_steps": 3},
            "adapter": {"layers": "last:1"},
            "privacy": {"epsilon": epsilon},
        }
        return parse(Study, declared, where="test")

    return make


def _fingerprint(folder: Path) -> str:
    return find(Model(source=str(folder))).fingerprint
