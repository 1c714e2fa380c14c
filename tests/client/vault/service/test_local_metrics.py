"""Figures about a received adapter on held-out records, for this node alone."""

import json
import logging

import pytest

from client.vault.review.node_files import open_node
from client.vault.service.node_vault import NodeVault
from shared.errors import RunError
from tests.support.nodes import Node, task


def test_local_metrics_stay_in_a_local_file(node: Node) -> None:
    study, node_vault = node.study(), NodeVault(node.config)
    node.write(holdout=0.3)
    node.approve(study)
    node_vault.train(task(study))
    node_vault.measure(task(study), lambda: None)
    (line,) = map(json.loads, open_node(node.config).folders.metrics.read_text().splitlines())
    assert (line["run"], line["round"]) == ("r-1", 1) and 0 <= line["accuracy"] <= 1 and line["loss"] > 0
    assert line["train_seconds"] > 0 and 0 <= line["clip_fraction"] <= 1
    assert open_node(node.config).folders.metrics.stat().st_mode & 0o077 == 0
    node.write(node="local_metrics = false")
    node_vault.measure(task(study), lambda: None)
    assert len(open_node(node.config).folders.metrics.read_text().splitlines()) == 1


def test_the_next_round_waits_for_no_pass_over_the_held_out_records(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study, node_vault = node.study(), NodeVault(node.config)
    node.write(holdout=0.3)
    node.approve(study)
    node_vault.train(task(study))
    folder = open_node(node.config).cache_folder()
    monkeypatch.setattr("client.vault.service.local_metrics.evaluate", lambda *_, **__: pytest.fail("evaluated"))
    before = {path.name for path in folder.rglob("*")}

    def make_way() -> None:
        raise RunError("Expected time to measure, the next round was asked for.")

    with caplog.at_level(logging.WARNING):
        node_vault.measure(task(study), make_way)
    assert "the next round was asked for" in caplog.text
    assert {path.name for path in folder.rglob("*")} == before, "nothing half-built is left"
