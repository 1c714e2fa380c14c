"""A small federation ends with a report that holds its private evaluation: the server's own run, and real vaults."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message
from typer.testing import CliRunner

from client.answer import answer
from client.vault.service.node_vault import NodeVault
from server import run_process
from server.cli.app import cli
from server.private_evaluation import asking
from server.rounds import participants
from server.run_process import drive
from server.run_store.evaluations import EvaluationStore
from server.run_store.store import Store
from server.settings import Home
from shared.evidence.signed_report import verify
from shared.study.declaration import Study
from simulations.engines.grid import LocalGrid
from tests.support.in_process_grid import in_process
from tests.support.killed_between import Killed, killed_after
from tests.support.nodes import Node

pytestmark = pytest.mark.integration
GROUPS: dict[str, Any] = {"column": "sex", "values": ["women", "men"]}
NAMES = ("north", "south", "east")
EVALUATION = {"epsilon": 4.0, "rounds": [1], "cells": "confusion", "subgroup": GROUPS}


def word(place: int) -> str:
    return ("bad", "good")[place % 2]


def label(place: int) -> str:
    return ("no", "yes")[place % 2]


class Federation:
    """A server and three nodes, with Flower's grid in memory."""

    def __init__(self, folder: Path, tiny_bert: Path, make_study: Callable[..., Study]) -> None:
        self.home, self.nodes = Home(folder / "server"), list[Node]()
        self.command("init", "--host", "server.example.org")
        for name in NAMES:
            (folder / name).mkdir()
            node = Node(folder / name, tiny_bert, make_study)
            rows = [f"{word(i)} word{i % 60} {name}{i},{label(i)},{GROUPS['values'][i // 2 % 2]}" for i in range(300)]
            node.data.write_text("text,label,sex\n" + "\n".join(rows) + "\n")
            node.write(
                epsilon=20.0,
                holdout=0.5,
                declared_size=300,
                evaluation="yes",
                readable_columns=["text", "label", "sex"],
            )
            self.nodes.append(node)
        sections = {"federation": {"rounds": 2, "quorum": 3}, "training": {"local_steps": 1}, "evaluation": EVALUATION}
        self.study = self.nodes[0].study(privacy={"epsilon": 6.0}, **sections)
        with Store(self.home.database()) as store:
            self.run = store.create_run(self.study).id
            for number, name in enumerate(NAMES, start=1):
                store.invite(name, name, datetime.now(UTC) + timedelta(days=1))
                store.enrol(name, name, number, datetime.now(UTC))
        for node in self.nodes:
            node.approve(self.study, self.run)

    def command(self, *arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--home", str(self.home.folder)])
        assert done.exit_code == 0, f"{done.output}{done.exception}"
        return done.stdout

    def handle(self, message: Message, partition: int, _nodes: int) -> Message:
        return Message(answer(message, NodeVault(self.nodes[partition].config)), reply_to=message)


class Driven(LocalGrid):
    """Nodes of this process, in a run that Flower would know."""

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)


@pytest.fixture
def federation(
    tmp_path: Path, tiny_bert: Path, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Federation]:
    federation = Federation(tmp_path, tiny_bert, make_study)
    control = SimpleNamespace(
        wait_until_it_answers=lambda: None,
        nodes=list,
        register=lambda public_key: NAMES.index(public_key) + 1,
        close=lambda: None,
    )
    with ThreadPoolExecutor(1) as pool:

        @contextmanager
        def driven(_home: Home, **_limits: int) -> Iterator[Driven]:
            yield Driven(in_process(pool, federation.handle), [1] * len(NAMES))

        monkeypatch.setattr(participants, "POLL_S", 0.01)
        monkeypatch.setattr(asking, "LOOK_EVERY_S", 0.05)
        monkeypatch.setattr(run_process, "Control", lambda _home: control)
        monkeypatch.setattr(run_process, "drive_run", driven)
        yield federation


def test_a_federation_ends_with_a_report_that_holds_the_evaluation(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(1, [(EvaluationStore, ("keep_counts",))], monkeypatch), suppress(Killed):
        drive(federation.home, federation.run)
    drive(federation.home, federation.run)
    shown = json.loads(federation.command("show", federation.run, "--json"))
    assert shown["state"] == "finished" and [one["number"] for one in shown["evaluations"]] == [1, 2]
    assert all((one["sites"], one["without"]) == (sorted(NAMES), {}) for one in shown["evaluations"])
    for node in federation.nodes:
        assert node.rows().count("evaluation") == 2, "a kill between two answers had nobody pay twice"
    assert "worst site" in federation.command("show", federation.run)
    federation.command("report", federation.run, "--out", str(tmp_path / "report"))
    report = verify(
        (tmp_path / "report.json").read_bytes(), (federation.home.keys / "authority.crt").read_bytes()
    ).report
    assert report.further.evaluation is not None and report.further.evaluation.number == 2
    accuracy = next(e for e in report.further.evaluation.estimates if e.measure == "accuracy")
    assert report.answer is not None and report.answer.quality.value == accuracy.value
    page, card = (tmp_path / "report.html").read_text(), federation.home.runs / federation.run / "adapter" / "README.md"
    assert f"{accuracy.value:.3f}" in page and "Measured at the organisations" in card.read_text()
    assert not set(NAMES) & set(card.read_text().split()), "a card names no site"
