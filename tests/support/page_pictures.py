"""Draw the pages of a node's operator for the guide, from a node that trained two rounds: make pictures."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from PIL import Image

from client.vault.ledger.rows import decided
from client.vault.review.node_files import open_node
from client.vault.review.review import StudyReview
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from shared.adapted_model.model import layout_of
from shared.base_models.locate import find
from shared.files import write_atomically
from shared.protocol.messages import TrainTask
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.sections import Model
from tests.support.browser import Visitor, chromium
from tests.support.operators_page import PURPOSE, OperatorsPage, operators_page, show_study
from tests.support.paths import ROOT

COLOURS = 64
MODEL = "bundled:minilm"
PAST, WAITING = "r-20261118-5c1d2e3f", "r-20261129-1a2b3c4d"
SIZE = {"width": 1180, "height": 1320}


def draw(root: Path) -> None:
    """Write the pictures below a folder."""
    with (
        tempfile.TemporaryDirectory() as folder,
        node_with_history(Path(folder)) as page,
        chromium(_missing) as browser,
    ):
        visitor = Visitor(browser, page.site.base, viewport=SIZE)
        visitor.open(page.site.address)
        visitor.page.get_by_text("One study waits").wait_for()
        write_atomically(root / "client" / "page.png", _small(visitor.page.screenshot(full_page=True)))
        visitor.page.get_by_role("link", name="Look at").click()
        visitor.page.get_by_role("heading", name="Your decision").wait_for(timeout=60_000)
        write_atomically(root / "client" / "page-study.png", _small(visitor.page.screenshot(full_page=True)))
        visitor.close()


@contextmanager
def node_with_history(folder: Path) -> Iterator[OperatorsPage]:
    """Yields the page of a node that trained two rounds of one study, and was shown another one."""
    os.environ["FEDVAULT_DEPLOYMENT"] = "vault"
    torch.set_num_threads(1)  # threads that wait for others spin, and slow a busy machine down
    fingerprint = str(find(Model(source=MODEL)).fingerprint)
    table = pd.read_csv(ROOT / "data" / "vader" / "vader.csv", dtype=str, keep_default_na=False)
    table[table["site"] == "movies"].sample(600, random_state=1)[["text", "label"]].to_csv(
        folder / "ward.csv", index=False
    )
    policy: dict[str, Any] = {"source": "ward.csv", "epsilon": 3.0, "delta": 1e-5, "declared_size": 540}
    lines = [f"{key} = {json.dumps(value)}" for key, value in (policy | {"models": [fingerprint]}).items()]
    config = folder / "node.toml"
    config.write_text("\n".join(["[datasets.ward]", *lines]) + "\n")
    past, steps = _study("letters by tone", 1.0, fingerprint), Steps()
    vault = NodeVault(config, on_step=steps)
    _approve(config, past, PAST)
    _train(vault, past, rounds=2)
    show_study(config, _study("letters to read first", 1.2, fingerprint), WAITING)
    with serving(VaultService(vault, steps), open_node(config).folders.socket), operators_page(config) as page:
        yield page


def _study(name: str, epsilon: float, fingerprint: str) -> Study:
    declared: dict[str, Any] = {
        "study": {"name": name, **PURPOSE},
        "model": {"source": MODEL, "fingerprint": fingerprint},
        "task": {"kind": "sequence-classification", "labels": ["negative", "positive"], "max_length": 24},
        "federation": {"rounds": 4, "smallest_declared_size": 500, "quorum": 3},
        "adapter": {"layers": "last:1"},
        "privacy": {"epsilon": epsilon},
    }
    return parse(Study, declared, where=name)


def _approve(config: Path, study: Study, run: str) -> None:
    show_study(config, study, run)
    node = open_node(config)
    review = StudyReview(node)
    reviewed = review.review(study, node.dataset("ward"))
    with node.open_ledger() as ledger:
        review.approve(ledger, reviewed, run, decided("Dr. Weber", "ethics vote 2026-114"))


def _train(vault: NodeVault, study: Study, *, rounds: int) -> None:
    adapter = np.zeros(layout_of(study).length, np.float32)
    for number in range(1, rounds + 1):
        task = TrainTask(study.sha256, PAST, number, adapter)
        reply = vault.train(task)
        if not reply.update.any():
            raise RuntimeError(f"Expected an update of round {number}, got {reply.status.name}.")
        vault.measure(task, lambda: None)
        adapter = adapter + reply.update


def _small(png: bytes) -> bytes:
    drawn = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(drawn, "png", optimize=True)
    return drawn.getvalue()


def _missing(reason: str) -> NoReturn:
    raise SystemExit(reason)


if __name__ == "__main__":
    draw(ROOT)
