"""An adapter is measured on a table of the server's operator."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from server.rounds.evaluation import evaluator
from shared.adapted_model.model import build
from shared.study.declaration import Study


def test_an_adapter_is_measured_on_the_servers_own_table(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    study, table = make_study(adapter={"layers": "last:1"}), tmp_path / "own.csv"
    table.write_text("text,label\nword1 good,yes\nword2 bad word3 word4,no\nfine,maybe\n")
    length = build(study).layout.length
    adapters = [np.random.default_rng(seed).normal(0, 1, length).astype(np.float32) for seed in range(20)]
    measure = evaluator(study, table, {})
    results = [measure(0, adapter) for adapter in adapters]
    cached = evaluator(study, table, {}, cache=tmp_path / "cache")
    assert [cached(0, adapter) for adapter in adapters] == results, "keeping frozen states changes no figure"
    assert list((tmp_path / "cache").glob("*.f32"))
    assert all(entry["records"] == 2 for entry in results), "a label that the study does not know is left out"
    assert {entry["accuracy"] for entry in results} <= {0.0, 0.5, 1.0} and len(
        {entry["accuracy"] for entry in results}
    ) > 1
