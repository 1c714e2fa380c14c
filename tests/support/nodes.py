"""A node's folder, and what a server asks of its vault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.operator.doctor import examine
from client.operator.finding import Finding
from client.vault.review.node_files import open_node
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.protocol.messages import StudyOffer, TrainTask
from shared.study.declaration import Study
from shared.study.sections import Model
from tests.support.ledgers import rows_of
from tests.support.operators import approve_study, register_dataset

Studies = Callable[..., Study]


class Node:
    """A node's folder with one dataset, and what its operator may change."""

    def __init__(self, folder: Path, tiny_bert: Path, make_study: Studies) -> None:
        self.folder, self._tiny_bert, self._make_study = folder, tiny_bert, make_study
        self.fingerprint = find(Model(source=str(tiny_bert))).fingerprint
        self.config, self.data = folder / "node.toml", folder / "ward.csv"
        rows = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
        self.data.write_text("text,label\n" + "\n".join(rows) + "\n")
        self.write()

    def write(self, node: str = "", **changes: Any) -> None:
        policy = {"epsilon": 3.0, "delta": 1e-5, "declared_size": 54, "models": [self.fingerprint]} | changes
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in policy.items())
        models = f'models = "{self._tiny_bert.parent}"'
        self.config.write_text(f'[node]\n{models}\n{node}\n[datasets.ward]\nsource = "ward.csv"\n{lines}\n')

    def study(self, **sections: Any) -> Study:
        model = {"source": str(self._tiny_bert), "fingerprint": self.fingerprint}
        usual = {"model": model, "adapter": {"layers": "last:1"}, "federation": {"quorum": 3}}
        return self._make_study(**usual | sections)

    def approve(self, study: Study, run: str = "r-1") -> None:
        approve_study(self.config, study, run)

    def register(self) -> None:
        register_dataset(self.config)

    def register_other(self, name: str, text: str, **changes: Any) -> None:
        """Register another dataset with one record, under a policy of its own."""
        usual = self.config.read_text()
        self.write(**changes)
        (self.folder / f"{name}.csv").write_text(f"text,label\n{text},no\n")
        self.config.write_text(self.config.read_text().replace("ward", name))
        register_dataset(self.config, name)
        self.config.write_text(usual)

    def rows(self) -> list[str]:
        with open_node(self.config).open_ledger() as ledger:
            return [row["kind"] for row in rows_of(ledger)]


def offer(study: Study, run: str = "r-1") -> StudyOffer:
    return StudyOffer(run, study.canonical_json())


def task(study: Study, number: int = 1, run: str = "r-1") -> TrainTask:
    return TrainTask(study.sha256, run, number, np.zeros(layout_of(study).length, np.float32))


class UnjoinedNode:
    """A node with two datasets that share a record, which has not joined."""

    def __init__(self, folder: Path, tiny_bert: Path, make_study: Studies) -> None:
        model = {"source": str(tiny_bert), "fingerprint": find(Model(source=str(tiny_bert))).fingerprint}
        self.config, self.data = folder / "node.toml", folder / "ward.csv"
        self.study = make_study(model=model, federation={"quorum": 3}, privacy={"epsilon": 2.99})
        self.label("yes")
        dataset = f'epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{model["fingerprint"]}"]\n'
        sections = [f'[datasets.{name}]\nsource = "{name}.csv"\n{dataset}' for name in ("ward", "renamed")]
        self.config.write_text(f'[node]\nmodels = "{tiny_bert.parent}"\n' + "".join(sections))
        (folder / "renamed.csv").write_text("text,label\nGOOD  word7,no\nanother,yes\n")

    def label(self, label: str) -> None:
        rows = "".join(f"good word{i},{label if i % 2 else 'no'}\n" for i in range(60))
        self.data.write_text("text,label\n" + rows)

    def approve(self, run: str = "r-1", dataset: str = "ward") -> None:
        approve_study(self.config, self.study, run, dataset)

    def examined(self) -> dict[str, Finding]:
        return {found.check: found for found in examine(self.config, self.study, "ward")}
